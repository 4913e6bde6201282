"""A small model of several tasks to train in checks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TwoHeads(nn.Module):
    """A trunk with BatchNorm, a head for each task, and a parameter that nobody uses. Inputs (N, 6)."""

    def __init__(self, tasks: Sequence[str] = ("a", "b")) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 8))
        self.heads = nn.ModuleDict({task: nn.Linear(8, 2) for task in tasks})
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.trunk(inputs).tanh()
        return {task: head(features) for task, head in self.heads.items()}

    def losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """Losses that pull the trunk in opposite directions."""
        outputs = self(inputs)
        return {task: (out - (-1) ** i).square().mean() for i, (task, out) in enumerate(outputs.items())}


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    """Copies of all `.grad`, by name."""
    return {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
