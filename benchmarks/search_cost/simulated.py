"""A problem whose epochs cost nothing: what a search of thousands of trials takes beside the training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from examples.own_problem import Waves, make_waves


class Simulated(Waves):
    """Two samples and a model of a few weights; the figures are a function of the config and the epoch."""

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.splits = {name: make_waves(2, seed) for seed, name in enumerate(("train", "val", "test"))}
        self._epoch = 0

    def size(self, split: str) -> int:
        return 2

    def build_model(self) -> nn.Module:
        return nn.Linear(32, 3)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        self._epoch += 1
        parameters = self.config.optimizer.model_dump()
        distance = math.log10(parameters["lr"] / 0.02) ** 2 + math.log2(self.config.model.width / 40) ** 2
        level = 0.1 + distance + 0.05 * torch.rand((), generator=torch.Generator().manual_seed(self.config.seed)).item()
        return {
            "frequency_error": level * (1 + 1 / self._epoch),
            "phase_error": (0.3 + 1 / (1 + distance)) * (1 + 1 / self._epoch),
        }
