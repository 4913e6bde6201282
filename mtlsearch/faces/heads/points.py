"""Dense regression (Basak 2023): every point's coordinates straight from the pooled features.

The paper's 520 points, or the 68 landmarks alone. Each coordinate is whitened with the training split's mean and
deviation, in units of the crop: the head starts from the mean face. Depth is levelled, since it has no origin in an
image: each face's points have mean depth 0.

Angles follow from the predicted points by a weighted Procrustes fit of the mean frontal face (`procrustes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlsearch.faces.geometry import matrix_to_euler
from mtlsearch.faces.heads.head import Part, TaskHead, TaskHeadConfig
from mtlsearch.faces.losses import LossConfig, WingMSE
from mtlsearch.faces.metrics import level_depth
from mtlsearch.faces.procrustes import fit_rotation, frontal_template
from mtlsearch.faces.regressors import LinearRegressorConfig, RegressorConfig
from mtlsearch.faces.targets import FaceStatistics, Targets


class PointHead(TaskHead):
    """(N, C, H, W) -> whitened coordinates (N, 3·D) of D points, x, y, z of one after the other."""

    mean: Tensor
    std: Tensor
    template: Tensor
    template_weights: Tensor

    def __init__(self, config: PointHeadConfig, channels: int, statistics: FaceStatistics) -> None:
        super().__init__(config)
        self._config = config
        self.image_size = statistics.image_size
        points = self._points(statistics.targets)
        self.regressor = config.regressor.build(channels, points[0].numel())
        std, mean = torch.std_mean(points.flatten(1).double() / self.image_size, dim=0)
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", torch.where(std > 1e-6, std, torch.ones_like(std)).float())
        template, weights = frontal_template(points, statistics.targets.angles)
        self.register_buffer("template", template)
        self.register_buffer("template_weights", weights)
        self.measure(torch.zeros_like(points.flatten(1)), statistics.targets)

    def forward(self, features: Tensor) -> Tensor:
        return self.regressor(features)

    def decode(self, output: Tensor) -> Part:
        points = (output.float() * self.std + self.mean).unflatten(1, (-1, 3)) * self.image_size
        rotation = fit_rotation(points, self.template, self.template_weights)
        part = {"landmarks": points[:, :68], "angles": matrix_to_euler(rotation)}
        return part | {"dense": points} if self._config.points == "dense" else part

    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        unit = self._config.unit
        predicted = (output.float() * self.std + self.mean) * unit
        return {"": self._config.loss(predicted, self._points(targets).flatten(1) * (unit / self.image_size))}

    def _points(self, targets: Targets) -> Tensor:
        points = targets.dense if self._config.points == "dense" else targets.landmarks
        assert points is not None  # the config's labels ask for them
        return level_depth(points)


class PointHeadConfig(TaskHeadConfig):
    """Points by regression; one task.

    points: "dense", the 520 (or a pack's own), of which the 68 landmarks come first, or "landmarks", the 68 alone.
    unit: the side of the crop in which the loss measures errors: 256 is the paper's pixels; its released code divides
    them by 255 first, which is a unit of 256/255.
    """

    kind: Literal["points"] = "points"
    points: Literal["landmarks", "dense"] = "landmarks"
    regressor: RegressorConfig = LinearRegressorConfig()
    loss: LossConfig = WingMSE()
    unit: PositiveFloat = 256.0

    derives: ClassVar = ("angles",)
    needs_depth: ClassVar = True

    @property
    def learns(self) -> tuple[str, ...]:
        return ("landmarks", "dense") if self.points == "dense" else ("landmarks",)

    @property
    def weights(self) -> Mapping[str, float]:
        return {"": self.loss.weight}

    @property
    def labels(self) -> tuple[str, ...]:
        return ("dense",) if self.points == "dense" else ()

    def build(self, channels: int, statistics: FaceStatistics) -> PointHead:
        return PointHead(self, channels, statistics)
