"""The plainest regressor: mean over the map and one linear layer."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mtlsearch.training.schema import Section


class LinearRegressor(nn.Sequential):
    """(N, C, H, W) -> (N, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        linear = nn.Linear(inputs, outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


class LinearRegressorConfig(Section):
    kind: Literal["linear"] = "linear"

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return LinearRegressor(inputs, outputs)
