"""What every system is: an architecture with its losses and its decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.targets import FaceStatistics, Prediction, Targets


class System(nn.Module, ABC):
    """An architecture with its losses and its decoding. Derive, and add a line to `SYSTEMS`.

    Everything of the data that predictions need is kept in persistent buffers, so that a checkpoint alone predicts.
    """

    Config: ClassVar[type[FaceRunConfig]]

    #: (3,) int64: side of the input in pixels, landmarks of a face, dense points of a face (0: none)
    data_shape: Tensor

    def __init__(self, config: Any, statistics: FaceStatistics) -> None:
        super().__init__()
        self.image_size = statistics.image_size
        targets = statistics.targets
        dense = 0 if targets.dense is None else targets.dense.shape[1]
        self.register_buffer("data_shape", torch.tensor([self.image_size, targets.landmarks.shape[1], dense]))

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Images (N, 3, S, S), normalised -> what `losses` and `decode` take: a tensor, or a dict or tuple of them."""

    @abstractmethod
    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters whose task gradients are combined."""

    @abstractmethod
    def losses(self, output: Any, targets: Targets) -> dict[str, Tensor]:
        """A scalar for each of the config's tasks, static weights applied."""

    @abstractmethod
    def decode(self, output: Any) -> Prediction:
        """Landmarks in pixels and angles in degrees of the network's output; torch.export can trace it."""
