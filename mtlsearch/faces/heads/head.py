"""What every task head is: from a backbone's feature map to a part of a prediction, with the losses it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from mtlsearch.faces.targets import FaceStatistics, Targets
from mtlsearch.training.schema import Section

Part = dict[str, Tensor]
"""of a prediction: landmarks (N, K, 2 or 3) and dense (N, D, 3) in pixels of the input, angles (N, 3) in degrees"""


class TaskHead(nn.Module, ABC):
    """A feature map (N, C, H, W) -> numbers, which `decode` reads and `loss_values` compares with the targets."""

    def __init__(self, config: TaskHeadConfig) -> None:
        super().__init__()
        self._weights = dict(config.weights)
        self._normalize = config.normalize
        self._scale = dict.fromkeys(self._weights, 1.0)

    @abstractmethod
    def decode(self, output: Tensor) -> Part:
        """What the config says that it learns and derives, of the head's output."""

    @abstractmethod
    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """A scalar for each task of the config, unweighted."""

    def losses(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The same, normalised and times their static weights."""
        values = self.loss_values(output, targets)
        return {task: value * (self._weights[task] / self._scale[task]) for task, value in values.items()}

    def measure(self, constant: Tensor, targets: Targets) -> None:
        """Takes the losses of a constant output as their units, where the config says `normalize`."""
        if self._normalize:
            with torch.no_grad():
                values = self.loss_values(constant, targets)
            self._scale = {task: float(value) or 1.0 for task, value in values.items()}


class TaskHeadConfig(Section, ABC):
    """A head by its `kind`, with its losses.

    normalize: divide each loss by its value for the constant prediction that the head starts from, so that a weight of
    1 means the same for every loss and head.
    """

    normalize: bool = True

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """Task -> its static weight λ. A head of one task calls it "", and the system names it after the head."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """What it learns from, besides landmarks and angles: see `FaceRunConfig.labels`."""

    @property
    @abstractmethod
    def learns(self) -> tuple[str, ...]:
        """Parts of a prediction that its losses are about."""

    #: parts that follow from those, for a system in which no other head learns them
    derives: ClassVar[tuple[str, ...]] = ()
    #: whether it takes landmarks in 3D
    needs_depth: ClassVar[bool] = False

    @abstractmethod
    def build(self, channels: int, statistics: FaceStatistics) -> TaskHead:
        """The head for feature maps of so many channels."""


class SingleTaskHeadConfig(TaskHeadConfig):
    """A head of one task, which learns from landmarks or angles alone. weight: its static weight λ."""

    weight: NonNegativeFloat = 1.0

    @property
    def weights(self) -> Mapping[str, float]:
        return {"": self.weight}

    @property
    def labels(self) -> tuple[str, ...]:
        return ()
