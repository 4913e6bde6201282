"""Kim 2023: a backbone, three MBConv heads, and a morphable model that turns their numbers into landmarks.

The equations are in `mtlsearch.faces.heads.parameters`; docs/systems/kim2023.md goes through the paper. The three
losses are the tasks that PCGrad combines, over the backbone's parameters: the landmark loss reaches all three
regressors, which stay out of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mtlsearch.faces.heads import ParameterHeadConfig, TaskHeadConfig
from mtlsearch.faces.losses import L1, MSE, LossConfig, SmoothL1
from mtlsearch.faces.regressors import MBConvRegressorConfig, RegressorConfig
from mtlsearch.faces.systems.multi_head import BackboneConfig, MultiHead, MultiHeadRunConfig
from mtlsearch.training.schema import Section


class ModelConfig(BackboneConfig):
    head: RegressorConfig = MBConvRegressorConfig()
    """of each of the three"""


class LossesConfig(Section):
    normalize: bool = True
    """divide each loss by its value for the mean face"""
    landmarks: LossConfig = SmoothL1()
    pose: LossConfig = L1()
    parameters: LossConfig = MSE()


class MorphableRunConfig(MultiHeadRunConfig):
    system: Literal["morphable"] = "morphable"
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()

    @property
    def heads(self) -> Mapping[str, TaskHeadConfig]:
        losses = self.losses
        head = ParameterHeadConfig(
            regressor=self.model.head,
            normalize=losses.normalize,
            landmarks=losses.landmarks,
            pose=losses.pose,
            parameters=losses.parameters,
        )
        return {"face": head}


class Morphable(MultiHead):
    """Images (N, 3, S, S) -> 62 whitened parameters: 12 pose, 40 shape, 10 expression."""

    Config = MorphableRunConfig
