"""Head pose as six numbers: the first two rows of the rotation, orthonormalised.

Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019,
https://arxiv.org/abs/1812.07035, section 4.2; for head pose with the geodesic distance as loss: Hempel et al., "6D
Rotation Representation for Unconstrained Head Pose Estimation", ICIP 2022, https://arxiv.org/abs/2202.12555, eq. 5.

The rotation is continuous through profile and beyond. Its three angles are not: a matrix has one triple with |yaw| up
to 90°, so a head that the data calls 100° of yaw is decoded as another triple of the same rotation. For data with such
labels (AFLW) `binned_pose` learns the angles themselves.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtlsearch.faces.geometry import euler_to_matrix, matrix_to_euler, orthonormalize
from mtlsearch.faces.heads.head import Part, SingleTaskHeadConfig, TaskHead
from mtlsearch.faces.regressors import LinearRegressorConfig, RegressorConfig
from mtlsearch.faces.targets import FaceStatistics, Targets


def geodesic(first: Tensor, second: Tensor) -> Tensor:
    """The angle in radians (…) between rotations (…, 3, 3), by the half-angle formula.

    2·atan2(‖A − B‖_F, √(8 − ‖A − B‖_F²)) keeps its precision near 0 and its gradient finite near 0 and π, where acos of
    the trace has neither.
    """
    square = (first - second).square().sum((-2, -1)).clamp(1e-12, 8 - 1e-6)
    return 2 * torch.atan2(square.sqrt(), (8 - square).sqrt())


class Rotation6DHead(TaskHead):
    """(N, C, H, W) -> (N, 6): what is added to the first two rows of the mean rotation."""

    mean: Tensor

    def __init__(self, config: Rotation6DHeadConfig, channels: int, statistics: FaceStatistics) -> None:
        super().__init__(config)
        self._loss = config.loss
        angles = statistics.targets.angles
        self.regressor = config.regressor.build(channels, 6)
        self.register_buffer("mean", euler_to_matrix(angles).mean(0)[:2].flatten())
        self.measure(angles.new_zeros(len(angles), 6), statistics.targets)

    def forward(self, features: Tensor) -> Tensor:
        return self.regressor(features)

    def rotation(self, output: Tensor) -> Tensor:
        """(N, 6) -> (N, 3, 3)"""
        rows = (output.float() + self.mean).unflatten(1, (2, 3))
        return orthonormalize(torch.cat([rows, torch.zeros_like(rows[:, :1])], dim=1))[0]

    def decode(self, output: Tensor) -> Part:
        return {"angles": matrix_to_euler(self.rotation(output))}

    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        predicted, true = self.rotation(output), euler_to_matrix(targets.angles)
        if self._loss == "geodesic":
            return {"": torch.rad2deg(geodesic(predicted, true)).mean()}
        return {"": (predicted - true).square().sum((-2, -1)).mean()}


class Rotation6DHeadConfig(SingleTaskHeadConfig):
    """Angles by a rotation's first two rows; one task.

    loss: "geodesic", the mean angle in degrees, or "frobenius", the mean of ‖R − R*‖².
    """

    kind: Literal["rotation_6d"] = "rotation_6d"
    regressor: RegressorConfig = LinearRegressorConfig()
    loss: Literal["geodesic", "frobenius"] = "geodesic"

    @property
    def learns(self) -> tuple[str, ...]:
        return ("angles",)

    def build(self, channels: int, statistics: FaceStatistics) -> Rotation6DHead:
        return Rotation6DHead(self, channels, statistics)
