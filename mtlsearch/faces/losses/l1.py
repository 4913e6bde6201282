"""Mean absolute error (Kim 2023, eq. 3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from mtlsearch.faces.losses.weighted import WeightedLoss


class L1(WeightedLoss):
    """|x|, mean over all coordinates."""

    kind: Literal["l1"] = "l1"

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.l1_loss(predicted, target)
