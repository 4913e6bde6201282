"""The MBConv head of Kim 2023 (section 2; Table I fixes its structure to the parameter)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from mtlsearch.training.schema import Section


class SqueezeExcite(nn.Module):
    """Hu et al. 2018: channels reweighted by what the whole map says. Reduction 4, convolutions with bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 4)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(pooled))))


class MBConv(nn.Sequential):
    """1×1 in→in, depthwise 3×3, squeeze-and-excitation, 1×1 in→out; BN after each convolution, no bias in them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.SiLU(),
            SqueezeExcite(inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )


class MBConvRegressor(nn.Sequential):
    """MBConv(C → eC), MBConv(eC → C'), 1×1 convolution C' → C' + BN, mean over the map, Linear.

    Args:
        inputs: channels C of the feature map (N, C, H, W).
        outputs: numbers to predict, (N, outputs).
        expansion: e, 4 in the paper.
        channels: C', which is C in the paper.
    """

    def __init__(self, inputs: int, outputs: int, expansion: float = 4.0, channels: int | None = None) -> None:
        wide, narrow = max(1, round(inputs * expansion)), channels or inputs
        linear = nn.Linear(narrow, outputs)
        # the targets are whitened: starting near 0 is starting from the mean face
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        super().__init__(
            MBConv(inputs, wide),
            MBConv(wide, narrow),
            nn.Conv2d(narrow, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            linear,
        )


class MBConvRegressorConfig(Section):
    kind: Literal["mbconv"] = "mbconv"
    expansion: Annotated[float, Field(gt=0)] = 4.0
    channels: PositiveInt | None = None

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return MBConvRegressor(inputs, outputs, self.expansion, self.channels)
