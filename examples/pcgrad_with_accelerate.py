"""PCGrad under Hugging Face Accelerate: torchrun --nproc-per-node 2 examples/pcgrad_with_accelerate.py

`accelerate launch` does as well, on GPUs too without cpu=True. `prepare` wraps the model in DDP; the losses go to
PCGrad's own `backward` instead of `accelerator.backward`.
"""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtlsearch import PCGrad


class TwoTasks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 64), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(64, 1), nn.Linear(64, 1)])

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


def main() -> None:
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model = TwoTasks()
    pcgrad = PCGrad(torch.optim.SGD(model.parameters(), lr=0.05))
    inputs = torch.randn(256, 8)
    targets = torch.stack([inputs[:, :2].sum(1).tanh(), -inputs[:, 1:3].sum(1).tanh()], dim=1)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64 // accelerator.num_processes)
    model, optimizer, loader = accelerator.prepare(model, pcgrad, loader)
    for _ in range(5):
        for batch, wanted in loader:
            losses = [(output - target).square().mean() for output, target in zip(model(batch), wanted.split(1, dim=1))]
            optimizer.zero_grad()
            pcgrad.backward(losses, scaler=accelerator.scaler)
            optimizer.step()
    norm = sum(parameter.detach().square().sum() for parameter in model.parameters()).sqrt()
    cosine = pcgrad.diagnostics.cosines[0, 1]
    accelerator.print(f"processes {accelerator.num_processes}, cosine {cosine:.6f}, length of the weights {norm:.6f}")
    accelerator.wait_for_everyone()  # a process that leaves early takes its connections along
    del model, optimizer, pcgrad, losses  # before the process group that they use
    accelerator.end_training()


if __name__ == "__main__":
    main()
