"""Smooth L1 (Girshick 2015, eq. 3; Kim 2023, eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch.nn import functional

from mtlsearch.faces.losses.weighted import WeightedLoss


class SmoothL1(WeightedLoss):
    """x² / 2β where |x| < β, |x| − β/2 elsewhere; mean over all coordinates."""

    kind: Literal["smooth_l1"] = "smooth_l1"
    beta: PositiveFloat = 1.0

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.smooth_l1_loss(predicted, target, beta=self.beta)
