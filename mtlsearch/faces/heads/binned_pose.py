"""Head pose by classification into bins and expectation over them (Ruiz et al. 2018; Zhang 2018, section 3.1).

An angle's range is cut into bins of equal width. The network gives N logits for each of the three angles; their
softmax ŷ is a distribution over bins, and its expectation is the angle:

    Q̂ = Σ_i ŷ_i c_i,  c_i = the centre of bin i
    loss = mean over angles of (Q − Q̂)² + α₁ · (−Σ_i y_i ln ŷ_i)      (Zhang 2018, eq. 1 and 2)

Centres, because the left edges of Hopenet's code bias every angle by half a bin. Angles beyond the range belong to
the end bins in the cross-entropy; the squared error keeps the angle itself. The paper prints the norm of eq. 2 without
its square and calls it the mean square error: squared by default. It sums over the three angles; here it is their mean.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from mtlsearch.faces.heads.head import Part, SingleTaskHeadConfig, TaskHead
from mtlsearch.faces.regressors import LinearRegressorConfig, RegressorConfig
from mtlsearch.faces.targets import FaceStatistics, Targets
from mtlsearch.training.schema import Section

ANGLES = 3


class Bins(Section):
    """`count` bins of equal width from −`limit` to `limit` degrees. The default is Hopenet's: 66 of 3° on ±99°."""

    count: Annotated[int, Field(ge=2, le=1000)] = 66
    limit: PositiveFloat = 99.0

    @property
    def width(self) -> float:
        """Degrees."""
        return 2 * self.limit / self.count

    def centres(self, device: torch.device | None = None) -> Tensor:
        """(count,) float32, degrees.

        >>> Bins(count=4, limit=6).centres()
        tensor([-4.5000, -1.5000,  1.5000,  4.5000])
        """
        steps = torch.arange(self.count, dtype=torch.float32, device=device)
        return (steps + 0.5) * self.width - self.limit

    def indices(self, angles: Tensor) -> Tensor:
        """The bin of each angle: (…) degrees -> (…) int64 in [0, count); beyond the range it is the end bin."""
        return torch.floor((angles + self.limit) / self.width).clamp(0, self.count - 1).long()


def expected_angles(logits: Tensor, bins: Bins) -> Tensor:
    """Logits (…, count) -> the expected angles (…) in degrees, float32 whatever the logits' precision."""
    # a product and a sum: autocast would run a matrix product in bfloat16, which knows 60° to a quarter of a degree
    return (logits.float().softmax(-1) * bins.centres(logits.device)).sum(-1)


def bin_cross_entropy(logits: Tensor, angles: Tensor, bins: Bins) -> Tensor:
    """Eq. 1, mean over all angles: logits (…, count), angles (…) degrees -> a scalar, in nats."""
    return functional.cross_entropy(logits.float().flatten(0, -2), bins.indices(angles).flatten())


def binned_pose_loss(logits: Tensor, angles: Tensor, bins: Bins, alpha: float, squared: bool = True) -> Tensor:
    """Eq. 2: error of the expectation, in degrees² (degrees where not `squared`), plus `alpha` · eq. 1.

    Args:
        logits: (N, 3, count).
        angles: (N, 3) degrees: pitch, yaw, roll.
        alpha: α₁, the weight of the cross-entropy.
        squared: False takes the norm as the paper prints it.

    Returns:
        A scalar, the mean over images and angles.
    """
    error = expected_angles(logits, bins) - angles
    return (error.square() if squared else error.abs()).mean() + alpha * bin_cross_entropy(logits, angles, bins)


def constant_pose_loss(angles: Tensor, bins: Bins, alpha: float, squared: bool = True) -> Tensor:
    """Eq. 2 of predicting the mean angles and the frequencies of the bins for every face: what learning must beat.

    angles (N, 3) degrees -> a scalar.
    """
    error = angles - angles.mean(0)
    shares = functional.one_hot(bins.indices(angles), bins.count).float().mean(0)
    entropy = torch.special.entr(shares).sum(-1).mean()
    return (error.square() if squared else error.abs()).mean() + alpha * entropy


class BinnedPoseLayers(nn.Module):
    """A feature map (N, C, H, W) -> logits (N, 3, count): the map's mean and one linear layer for each angle."""

    def __init__(self, inputs: int, bins: Bins) -> None:
        super().__init__()
        self.angles = nn.ModuleList(nn.Linear(inputs, bins.count) for _ in range(ANGLES))
        for layer in self.angles.children():
            # starting near 0 is starting from a flat distribution, whose expectation is 0°
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return torch.stack([angle(pooled) for angle in self.angles], dim=1)


class BinnedPoseHead(TaskHead):
    """(N, C, H, W) -> logits (N, 3, count) of any regressor's numbers."""

    def __init__(self, config: BinnedPoseHeadConfig, channels: int, statistics: FaceStatistics) -> None:
        super().__init__(config)
        self._config = config
        self.regressor = config.regressor.build(channels, ANGLES * config.bins.count)
        angles = statistics.targets.angles
        self.measure(angles.new_zeros(len(angles), ANGLES, config.bins.count), statistics.targets)

    def forward(self, features: Tensor) -> Tensor:
        return self.regressor(features).unflatten(1, (ANGLES, -1))

    def decode(self, output: Tensor) -> Part:
        return {"angles": expected_angles(output, self._config.bins)}

    def loss_values(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        config = self._config
        return {"": binned_pose_loss(output, targets.angles, config.bins, config.alpha, config.squared)}


class BinnedPoseHeadConfig(SingleTaskHeadConfig):
    """Angles by expectation over bins; one task. alpha: α₁, of the cross-entropy."""

    kind: Literal["binned_pose"] = "binned_pose"
    regressor: RegressorConfig = LinearRegressorConfig()
    bins: Bins = Bins()
    alpha: NonNegativeFloat = 1.0
    squared: bool = True

    @property
    def learns(self) -> tuple[str, ...]:
        return ("angles",)

    def build(self, channels: int, statistics: FaceStatistics) -> BinnedPoseHead:
        return BinnedPoseHead(self, channels, statistics)
