"""PCGrad in any PyTorch project: wrap the optimizer, and give it the losses one by one."""

import torch

from mtlsearch import PCGrad

torch.manual_seed(0)
inputs = torch.randn(256, 8)
targets = {"size": inputs[:, :2].sum(1, keepdim=True), "angle": (inputs[:, 1:3] - inputs[:, :2]).tanh()}
trunk = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU())
heads = torch.nn.ModuleDict({name: torch.nn.Linear(64, target.shape[1]) for name, target in targets.items()})
optimizer = PCGrad(torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=1e-2))

for _ in range(200):
    features = trunk(inputs)
    losses = {name: (heads[name](features) - target).square().mean() for name, target in targets.items()}
    optimizer.zero_grad()
    optimizer.backward(losses)
    optimizer.step()

print(", ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items()), end="; ")
print(f"cosine of the two gradients {optimizer.diagnostics.cosines[0, 1]:.2f}")
