"""Mean squared error (Kim 2023, eq. 4; Basak 2023, eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from mtlsearch.faces.losses.weighted import WeightedLoss


class MSE(WeightedLoss):
    """x², mean over all coordinates."""

    kind: Literal["mse"] = "mse"

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(predicted, target)
