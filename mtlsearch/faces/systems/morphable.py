"""Kim 2023: a backbone, three MBConv heads, and a morphable model that turns their numbers into landmarks.

Equations of the paper and where they are: (1) `reconstruct`; (2) `losses.landmarks`, smooth L1; (3) `losses.pose`,
L1 on the three angles; (4) `losses.parameters`, squared L2 on the whitened parameters; (5) the weights λ of the
loss sections. The three losses are the tasks that PCGrad combines, over the backbone's parameters.

Ours, because the paper does not say: the losses are means over their elements; landmark errors are in pixels of a
256-pixel crop and angles in degrees, whatever the image size; with `normalize` each loss is divided by its value for
the mean face, so that λ = 1 weighs all three alike; the 12 pose numbers reconstruct as they are, and are
orthonormalised only where angles are read off them, which keeps the pose loss finite for any output.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from torch import nn

from mtlsearch.faces.backbones import Backbone, check_backbone
from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.geometry import matrix_to_euler, orthonormalize, project, wrap_degrees
from mtlsearch.faces.heads import HeadConfig, MBConvHeadConfig
from mtlsearch.faces.losses import L1, MSE, LossConfig, SmoothL1
from mtlsearch.faces.systems.system import FaceStatistics, Prediction, Targets
from mtlsearch.training.schema import Section

POSE, SHAPE, EXPRESSION = 12, 40, 10

#: the side of the crop in whose pixels landmark losses are measured
LOSS_PIXELS = 256


class ModelConfig(Section):
    backbone: Annotated[str, AfterValidator(check_backbone)] = "mobilenetv3_small_100"
    pretrained: bool = False
    head: HeadConfig = MBConvHeadConfig()


class LossesConfig(Section):
    normalize: bool = True
    """divide each loss by its value for the mean face"""
    landmarks: LossConfig = SmoothL1()
    pose: LossConfig = L1()
    parameters: LossConfig = MSE()


class MorphableRunConfig(FaceRunConfig):
    system: Literal["morphable"] = "morphable"
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()


class Morphable(nn.Module):
    """Images (N, 3, S, S) -> 62 whitened parameters (N, 62): 12 pose, 40 shape, 10 expression."""

    Config = MorphableRunConfig
    tasks = ("landmarks", "pose", "parameters")

    mean: torch.Tensor
    std: torch.Tensor
    unit: torch.Tensor
    basis_mean: torch.Tensor
    basis_modes: torch.Tensor

    def __init__(self, config: MorphableRunConfig, statistics: FaceStatistics) -> None:
        super().__init__()
        self.image_size = statistics.image_size
        self.backbone = Backbone(config.model.backbone, config.model.pretrained, statistics.image_size)
        heads = {"pose": POSE, "shape": SHAPE, "expression": EXPRESSION}
        self.heads = nn.ModuleDict(
            {name: config.model.head.build(self.backbone.channels, outputs) for name, outputs in heads.items()}
        )
        self._losses = config.losses
        # the pose is in pixels: whitened in units of the crop, weights mean the same at another image size
        unit = torch.ones_like(statistics.parameter_mean)
        unit[:POSE] = statistics.image_size
        self.register_buffer("mean", statistics.parameter_mean / unit)
        self.register_buffer("std", statistics.parameter_std / unit)
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("basis_mean", statistics.basis_mean)
        self.register_buffer("basis_modes", statistics.basis_modes)
        scale = self._loss_values(torch.zeros_like(statistics.parameters), statistics.targets)
        self._scale = {task: float(value) if config.losses.normalize else 1.0 for task, value in zip(self.tasks, scale)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        return torch.cat([head(features) for head in self.heads.values()], dim=1)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The backbone: the landmark loss reaches all three heads, which stay out of the projection."""
        return list(self.backbone.parameters())

    def reconstruct(self, parameters: torch.Tensor) -> torch.Tensor:
        """Eq. 1: landmarks (N, 68, 3) in pixels of the crop, y down, from parameters (N, 62), not whitened."""
        coefficients = parameters[:, POSE:]
        model = self.basis_mean + (self.basis_modes @ coefficients.T).permute(2, 0, 1)
        return project(model, parameters[:, :POSE], self.image_size)

    def decode(self, output: torch.Tensor) -> Prediction:
        """Landmarks in pixels of the crop and angles in degrees, of the network's output."""
        parameters = (output.float() * self.std + self.mean) * self.unit
        return Prediction(self.reconstruct(parameters), self._angles(parameters))

    def losses(self, output: torch.Tensor, targets: Targets) -> dict[str, torch.Tensor]:
        """Eq. 2 to 4, weighted by λ (eq. 5) and normalised, one scalar per task."""
        values = self._loss_values(output, targets)
        return {
            task: value * (getattr(self._losses, task).weight / self._scale[task])
            for task, value in zip(self.tasks, values)
        }

    def _loss_values(self, output: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        prediction = self.decode(output)
        unit = LOSS_PIXELS / self.image_size
        turned = wrap_degrees(prediction.angles - targets.angles)
        whitened = (targets.parameters / self.unit - self.mean) / self.std
        return (
            self._losses.landmarks(prediction.landmarks * unit, targets.landmarks * unit),
            self._losses.pose(turned, torch.zeros_like(turned)),
            self._losses.parameters(output.float(), whitened),
        )

    def _angles(self, parameters: torch.Tensor) -> torch.Tensor:
        matrix = parameters[:, :POSE].unflatten(1, (3, 4))[..., :3]
        rotation, _ = orthonormalize(matrix)
        return matrix_to_euler(rotation)
