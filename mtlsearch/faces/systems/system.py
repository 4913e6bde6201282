"""What a published system gets from the data and gives to the rest: statistics, targets, predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from mtlsearch.faces.config import FaceRunConfig


@dataclass(frozen=True)
class Targets:
    """What is known of N faces, on one device; all float32 but `visible`.

    landmarks (N, 68, 3): pixels of the crop, y down. angles (N, 3): degrees, pitch, yaw, roll. parameters (N, 62):
    12 pose numbers, row-major [sR | t], 40 shape and 10 expression coefficients.
    """

    landmarks: torch.Tensor
    angles: torch.Tensor
    parameters: torch.Tensor


@dataclass(frozen=True)
class Prediction:
    """What every system comes to: landmarks (N, 68, 3) in pixels of the crop, angles (N, 3) in degrees."""

    landmarks: torch.Tensor
    angles: torch.Tensor


@dataclass(frozen=True)
class FaceStatistics:
    """What a system may know of the training split before it sees an image.

    basis_mean (68, 3) and basis_modes (68, 3, 50) give landmarks in model units from shape and expression
    coefficients; parameter_mean and parameter_std (62) whiten; targets are those of the training split, uncropped
    by augmentation.
    """

    image_size: int
    basis_mean: torch.Tensor
    basis_modes: torch.Tensor
    parameter_mean: torch.Tensor
    parameter_std: torch.Tensor
    targets: Targets

    @property
    def parameters(self) -> torch.Tensor:
        return self.targets.parameters


class System(Protocol):
    """A published architecture with its losses and its decoding. An nn.Module."""

    Config: ClassVar[type[FaceRunConfig]]
    tasks: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any, statistics: FaceStatistics) -> None: ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...

    def shared_parameters(self) -> list[torch.nn.Parameter]: ...

    def losses(self, output: torch.Tensor, targets: Targets) -> dict[str, torch.Tensor]: ...

    def decode(self, output: torch.Tensor) -> Prediction: ...
