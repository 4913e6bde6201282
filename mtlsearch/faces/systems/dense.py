"""Basak 2023: a backbone and one layer that gives 520 points in 3D, learned with Wing and squared error.

The points are in `mtlsearch.faces.heads.points`; docs/systems/basak2023.md goes through the paper. Head pose, which the
paper does not predict, is a weighted Procrustes fit to the predicted points, or a second task with a head of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat

from mtlsearch.faces.heads import PointHeadConfig, Rotation6DHeadConfig, TaskHeadConfig
from mtlsearch.faces.losses import LossConfig, WingMSE
from mtlsearch.faces.regressors import LinearRegressorConfig, RegressorConfig
from mtlsearch.faces.systems.multi_head import BackboneConfig, MultiHead, MultiHeadRunConfig
from mtlsearch.training.schema import Section

PoseHeadConfig = Rotation6DHeadConfig


class ModelConfig(BackboneConfig):
    regressor: RegressorConfig = LinearRegressorConfig()
    points: Literal["dense", "landmarks"] = "dense"
    """the 520, or the 68 landmarks alone"""
    pose_head: PoseHeadConfig | None = None
    """None: angles by the Procrustes fit"""


class LossesConfig(Section):
    normalize: bool = True
    """divide the loss by its value for the mean face"""
    points: LossConfig = WingMSE()
    unit: PositiveFloat = 256.0
    """side of the crop in which the loss measures errors: 256 is the paper's pixels"""


class DenseRunConfig(MultiHeadRunConfig):
    system: Literal["dense"]
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()

    @property
    def heads(self) -> Mapping[str, TaskHeadConfig]:
        points = PointHeadConfig(
            points=self.model.points,
            regressor=self.model.regressor,
            loss=self.losses.points,
            unit=self.losses.unit,
            normalize=self.losses.normalize,
        )
        pose = self.model.pose_head
        return {"points": points} | ({"pose": pose} if pose is not None else {})


class Dense(MultiHead):
    """Images (N, 3, S, S) -> whitened coordinates of every point, and those of the pose head if there is one."""

    Config = DenseRunConfig
