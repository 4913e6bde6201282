"""Any TorchJD aggregator as a strategy: it is a callable from a Jacobian (T, P) to a gradient (P,)."""

import torch
from torchjd.aggregation import TrimmedMean

from mtlsearch import MultiTaskOptimizer

torch.manual_seed(0)
inputs = torch.randn(256, 8)
targets = {name: (inputs @ torch.randn(8, 2)).tanh() for name in ("first", "second", "third")}
trunk = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU())
heads = torch.nn.ModuleDict({name: torch.nn.Linear(64, 2) for name in targets})
adam = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=1e-2)
optimizer = MultiTaskOptimizer(adam, strategy=TrimmedMean(trim_number=1))

for _ in range(400):
    features = trunk(inputs)
    losses = {name: (heads[name](features) - target).square().mean() for name, target in targets.items()}
    optimizer.zero_grad()
    optimizer.backward(losses)
    optimizer.step()

print(", ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items()))
