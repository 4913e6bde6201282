"""The parameter head of Kim 2023: three regressors for pose, shape and expression, and a morphable model behind them.

Equations of the paper and where they are: (1) `reconstruct`; (2) the loss `landmarks`, smooth L1; (3) `pose`, L1 on the
three angles; (4) `parameters`, squared L2 on the whitened parameters; (5) the weights λ. The three are tasks of their
own, which PCGrad combines.

Ours, because the paper does not say: the losses are means over their elements; landmark errors are in pixels of a
256-pixel crop and angles in degrees, whatever the image size; the 12 pose numbers reconstruct as they are, and are
orthonormalised only where angles are read off them, which keeps the pose loss finite for any output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mtlsearch.faces.geometry import matrix_to_euler, orthonormalize, project, wrap_degrees
from mtlsearch.faces.heads.head import Part, TaskHead, TaskHeadConfig
from mtlsearch.faces.losses import L1, MSE, LossConfig, SmoothL1
from mtlsearch.faces.regressors import MBConvRegressorConfig, RegressorConfig
from mtlsearch.faces.targets import FaceStatistics, Targets

POSE, SHAPE, EXPRESSION = 12, 40, 10

#: the side of the crop in whose pixels landmark losses are measured
LOSS_PIXELS = 256


class ParameterHead(TaskHead):
    """(N, C, H, W) -> 62 whitened parameters (N, 62): 12 pose, 40 shape, 10 expression."""

    mean: Tensor
    std: Tensor
    unit: Tensor
    basis_mean: Tensor
    basis_modes: Tensor

    def __init__(self, config: ParameterHeadConfig, channels: int, statistics: FaceStatistics) -> None:
        super().__init__(config)
        self._losses = config
        self.image_size = statistics.image_size
        outputs = {"pose": POSE, "shape": SHAPE, "expression": EXPRESSION}
        self.regressors = nn.ModuleDict(
            {name: config.regressor.build(channels, count) for name, count in outputs.items()}
        )
        targets, basis = statistics.targets, statistics.basis
        assert targets.parameters is not None and basis is not None  # the config's labels ask for them
        std, mean = torch.std_mean(targets.parameters.double(), dim=0)
        # a parameter that never varies (the depth of a weak-perspective pose) stays as it is
        std = torch.where(std > 1e-6, std, torch.ones_like(std))
        # the pose is in pixels: whitened in units of the crop, weights mean the same at another image size
        unit = torch.ones(POSE + SHAPE + EXPRESSION)
        unit[:POSE] = statistics.image_size
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("mean", mean.float() / unit)
        self.register_buffer("std", std.float() / unit)
        self.register_buffer("basis_mean", basis.mean)
        self.register_buffer("basis_modes", basis.modes)
        self.measure(torch.zeros_like(targets.parameters), targets)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([regressor(features) for regressor in self.regressors.values()], dim=1)

    def decode(self, output: Tensor) -> Part:
        parameters = (output.float() * self.std + self.mean) * self.unit
        return {"landmarks": self.reconstruct(parameters), "angles": self.angles(parameters)}

    def reconstruct(self, parameters: Tensor) -> Tensor:
        """Eq. 1: landmarks (N, 68, 3) in pixels of the crop, y down, from parameters (N, 62), not whitened."""
        coefficients = parameters[:, POSE:]
        model = self.basis_mean + (self.basis_modes @ coefficients.T).permute(2, 0, 1)
        return project(model, parameters[:, :POSE], self.image_size)

    def angles(self, parameters: Tensor) -> Tensor:
        """(N, 3) degrees: pitch, yaw, roll of parameters (N, 62), not whitened."""
        rotation, _ = orthonormalize(parameters[:, :POSE].unflatten(1, (3, 4))[..., :3])
        return matrix_to_euler(rotation)

    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        assert targets.parameters is not None
        predicted = self.decode(output)
        unit = LOSS_PIXELS / self.image_size
        turned = wrap_degrees(predicted["angles"] - targets.angles)
        whitened = (targets.parameters / self.unit - self.mean) / self.std
        return {
            "landmarks": self._losses.landmarks(predicted["landmarks"] * unit, targets.landmarks * unit),
            "pose": self._losses.pose(turned, torch.zeros_like(turned)),
            "parameters": self._losses.parameters(output.float(), whitened),
        }


class ParameterHeadConfig(TaskHeadConfig):
    """Landmarks and angles by way of a morphable model's 62 parameters; three tasks: landmarks, pose, parameters."""

    kind: Literal["parameters"] = "parameters"
    regressor: RegressorConfig = MBConvRegressorConfig()
    landmarks: LossConfig = SmoothL1()
    pose: LossConfig = L1()
    parameters: LossConfig = MSE()

    @property
    def learns(self) -> tuple[str, ...]:
        return ("landmarks", "angles")

    needs_depth: ClassVar = True

    @property
    def weights(self) -> Mapping[str, float]:
        return {task: getattr(self, task).weight for task in ("landmarks", "pose", "parameters")}

    @property
    def labels(self) -> tuple[str, ...]:
        return ("pose", "shape", "expression")

    def build(self, channels: int, statistics: FaceStatistics) -> ParameterHead:
        return ParameterHead(self, channels, statistics)
