"""What is known of faces, what is predicted of them, and what a system may know before it sees one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What is known of N faces, on one device, in pixels of the network's input; float32 but `visible`.

    landmarks (N, K, 2 or 3): K = 68 or 21, y down, z in the same scale towards the viewer. angles (N, 3): degrees,
    pitch, yaw, roll. The rest is there when the system asks for it: visible (N, K) bool, there with any 21 landmarks,
    whose hidden ones have no coordinates; parameters (N, 62): 12 pose numbers, row-major [sR | t], 40 shape and 10
    expression coefficients; dense (N, D, 3): points of the whole face, the 68 landmarks first.
    """

    landmarks: Tensor
    angles: Tensor
    visible: Tensor | None = None
    parameters: Tensor | None = None
    dense: Tensor | None = None

    def first(self, count: int) -> Targets:
        """Of the first faces."""
        some = (None if value is None else value[:count] for value in (self.visible, self.parameters, self.dense))
        return Targets(self.landmarks[:count], self.angles[:count], *some)


@dataclass(frozen=True)
class Prediction:
    """What every system comes to: landmarks (N, K, 2 or 3) and dense points (N, D, 3) or None, in pixels of the
    network's input, and angles (N, 3) in degrees."""

    landmarks: Tensor
    angles: Tensor
    dense: Tensor | None = None

    def repeated(self, count: int) -> Prediction:
        """The landmarks and angles of one face, for so many."""
        return Prediction(self.landmarks.expand(count, -1, -1), self.angles.expand(count, -1))


@dataclass(frozen=True)
class ModelBasis:
    """68 landmarks in model units: mean (68, 3) + modes (68, 3, 50) @ shape and expression coefficients."""

    mean: Tensor
    modes: Tensor


@dataclass(frozen=True)
class FaceStatistics:
    """What a system may know of the training split before it sees an image.

    image_size: side of the network's input in pixels; targets: of the training split, in the pixels of its central
    crops; basis: of the morphable model that the parameters belong to, where they are known.
    """

    image_size: int
    targets: Targets
    basis: ModelBasis | None = None

    @classmethod
    def blank(cls, labels: tuple[str, ...], image_size: int, points: int, dense: int) -> FaceStatistics:
        """Statistics of the right shapes and nothing in them, for a system whose weights will be loaded.

        labels: those of the run config; points: landmarks of a face; dense: dense points of a face.
        """
        targets = Targets(
            landmarks=torch.zeros(2, points, 3),
            angles=torch.zeros(2, 3),
            visible=torch.ones(2, points, dtype=torch.bool) if "visible" in labels else None,
            parameters=torch.zeros(2, 62) if "shape" in labels else None,
            dense=torch.zeros(2, dense, 3) if "dense" in labels else None,
        )
        basis = ModelBasis(torch.zeros(68, 3), torch.zeros(68, 3, 50)) if "shape" in labels else None
        return cls(image_size, targets, basis)
