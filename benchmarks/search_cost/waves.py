"""examples/own_problem.py that notes when its training begins and when an epoch has been scored."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.search_cost.notes import note
from examples.own_problem import Waves

BEGUN, SCORED = "training begins", "epoch scored"


class NotedWaves(Waves):
    _begun = False

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._begun:
            self._begun = True
            note(BEGUN)
        return super().batch(indices, generator)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        figures = super().evaluate(model, split)
        note(SCORED)
        return figures
