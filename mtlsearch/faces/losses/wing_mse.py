"""The hybrid of Wing and squared error (Basak 2023, eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch.nn import functional

from mtlsearch.faces.losses.weighted import WeightedLoss
from mtlsearch.faces.losses.wing import wing


class WingMSE(WeightedLoss):
    """w₁·wing(x; w, ε) + w₂·x², means over all coordinates. The defaults are the paper's."""

    kind: Literal["wing_mse"] = "wing_mse"
    w: PositiveFloat = 15.0
    epsilon: PositiveFloat = 3.0
    w1: NonNegativeFloat = 1.5
    w2: NonNegativeFloat = 0.5

    @model_validator(mode="after")
    def _one_of_them_counts(self) -> WingMSE:
        if self.w1 == self.w2 == 0:
            raise ValueError("one of w1 and w2 must be above 0")
        return self

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        hybrid = self.w1 * wing(predicted - target, self.w, self.epsilon).mean()
        return hybrid + self.w2 * functional.mse_loss(predicted, target)
