"""A problem of your own: two tasks on noisy sine waves, nothing to do with faces.

    python -m mtlsearch.train --config examples/own_problem.yaml
    python -m mtlsearch.tune --space examples/own_space.yaml

run in the repository's root. The loop, the search, the tracker and `reproduce` work with any class like this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional

from mtlsearch.training import RunConfig
from mtlsearch.training.sample_scores import SampleScores
from mtlsearch.training.schema import Section

LENGTH = 32
SIZES = {"train": 600, "val": 200, "test": 200}


class ModelSection(Section):
    kind: Literal["mlp"] = "mlp"
    width: PositiveInt = 32


class WavesConfig(RunConfig):
    """The run config with a section of our own."""

    model: ModelSection = ModelSection()


class Waves:
    """Frequency and phase of a sine wave in noise, from 32 samples of it."""

    objectives = {"frequency_error": "min", "phase_error": "min"}
    metrics = ("frequency_error", "phase_error")
    tasks = ("frequency", "phase")

    def __init__(self, config: WavesConfig) -> None:
        self.config = config
        self.device = torch.device("cpu")

    @classmethod
    def config_class(cls, tree: Mapping[str, Any]) -> type[RunConfig]:
        return WavesConfig

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.splits = {name: make_waves(size, seed) for seed, (name, size) in enumerate(SIZES.items())}

    def to(self, device: torch.device) -> None:
        self.device = device

    def describe_data(self) -> str:
        return "sine waves in noise"

    def size(self, split: str) -> int:
        return SIZES[split]

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        signals, targets = self.splits["train"]
        noise = 0.05 * torch.randn(len(indices), LENGTH, generator=generator)
        return (signals[indices] + noise).to(self.device), targets[indices].to(self.device)

    def build_model(self) -> nn.Module:
        width = self.config.model.width
        trunk = nn.Sequential(nn.Linear(LENGTH, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        return nn.Sequential(trunk, nn.Linear(width, 3))

    def shared_parameters(self, model: nn.Module) -> list[nn.Parameter] | None:
        return None  # the graph shows which parameters both losses reach

    def losses(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        signals, targets = batch
        output = model(signals)
        return {
            "frequency": functional.mse_loss(output[:, 0], targets[:, 0]),
            "phase": functional.mse_loss(output[:, 1:], targets[:, 1:]),
        }

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        signals, targets = self.splits[split]
        return errors(model(signals.to(self.device)).cpu(), targets)

    # the two below may be left out: they give intervals over samples, and costs to search by

    def sample_scores(self, model: nn.Module, split: str) -> dict[str, SampleScores]:
        signals, targets = self.splits[split]
        difference = (model(signals.to(self.device)).cpu() - targets).abs().double().numpy()
        one_group = np.zeros(len(targets), np.int64)
        return {
            "frequency_error": SampleScores(difference[:, 0], one_group),
            "phase_error": SampleScores(difference[:, 1:].mean(axis=1), one_group),
        }

    def example(self) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        return self.build_model(), (torch.zeros(1, LENGTH),)

    def trivial_metrics(self, split: str) -> dict[str, float]:
        mean = self.splits["train"][1].mean(0)
        targets = self.splits[split][1]
        return errors(mean.expand_as(targets), targets)


def make_waves(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals (N, 32), and targets (N, 3): frequency in cycles, sine and cosine of the phase."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.5 + 3 * torch.rand(size, 1, generator=generator)
    phase = 2 * torch.pi * torch.rand(size, 1, generator=generator)
    signals = torch.sin(2 * torch.pi * frequency * torch.linspace(0, 1, LENGTH) + phase)
    return signals, torch.cat([frequency, phase.sin(), phase.cos()], dim=1)


def errors(output: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    difference = (output - targets).abs()
    return {
        "frequency_error": difference[:, 0].mean().item(),
        "phase_error": difference[:, 1:].mean().item(),
    }
