"""Handwritten digits, 8×8 pixels, and an MLP: the problem of a table of learning curves (benchmarks/search_tables.py).

The 1,797 images are those of scikit-learn (Alpaydin and Kaynak 1998), which comes with mlflow. As a problem of the
library's it has a single task; its error is the cross-entropy in nats, which has no ties as a share of errors would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from mtlsearch.training import RunConfig
from mtlsearch.training.schema import Section

SIZES = {"train": 900, "val": 400, "test": 497}


class MLPSection(Section):
    kind: Literal["mlp"] = "mlp"
    width: PositiveInt = 64
    layers: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class DigitsConfig(RunConfig):
    model: MLPSection = MLPSection()


class Digits:
    """Which of ten digits an image shows."""

    objectives = {"nll": "min"}
    metrics = ("nll", "error")
    tasks = ("digit",)

    def __init__(self, config: DigitsConfig) -> None:
        self.config = config
        self.device = torch.device("cpu")

    @classmethod
    def config_class(cls, tree: Mapping[str, Any]) -> type[RunConfig]:
        return DigitsConfig

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        images = torch.from_numpy(images).float()[order] / 16
        parts = zip(images.split(list(SIZES.values())), torch.from_numpy(labels)[order].split(list(SIZES.values())))
        self.splits = dict(zip(SIZES, parts))

    def to(self, device: torch.device) -> None:
        self.device = device

    def describe_data(self) -> str:
        return "digits of 8×8 pixels"

    def size(self, split: str) -> int:
        return SIZES[split]

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.splits["train"]
        return images[indices].to(self.device), labels[indices].to(self.device)

    def build_model(self) -> nn.Module:
        model = self.config.model
        widths = [64, *[model.width] * model.layers]
        hidden = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(model.dropout))
        ]
        return nn.Sequential(*hidden, nn.Linear(model.width, 10))

    def shared_parameters(self, model: nn.Module) -> list[nn.Parameter] | None:
        return None

    def losses(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        images, labels = batch
        return {"digit": functional.cross_entropy(model(images), labels)}

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        images, labels = self.splits[split]
        return scores(model(images.to(self.device)).cpu(), labels)

    def trivial_metrics(self, split: str) -> dict[str, float]:
        frequencies = functional.one_hot(self.splits["train"][1], 10).float().mean(0)
        labels = self.splits[split][1]
        return scores(frequencies.log().expand(len(labels), 10), labels)


def scores(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {
        "nll": functional.cross_entropy(logits, labels).item(),
        "error": (logits.argmax(1) != labels).float().mean().item(),
    }
