"""Wing loss (Feng et al. 2018, eq. 5; Basak 2023, eq. 1)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat

from mtlsearch.faces.losses.weighted import WeightedLoss


def wing(difference: torch.Tensor, w: float, epsilon: float) -> torch.Tensor:
    """w·ln(1 + |x|/ε) where |x| < w, |x| − C elsewhere, with C = w − w·ln(1 + w/ε); elementwise.

    >>> wing(torch.tensor([0.0, 20.0]), w=10.0, epsilon=2.0)
    tensor([ 0.0000, 27.9176])
    """
    size = difference.abs()
    constant = w - w * math.log1p(w / epsilon)
    return torch.where(size < w, w * torch.log1p(size / epsilon), size - constant)


class Wing(WeightedLoss):
    """`wing`, mean over all coordinates. The defaults are the paper's, for errors in pixels of a 256-pixel crop."""

    kind: Literal["wing"] = "wing"
    w: PositiveFloat = 10.0
    epsilon: PositiveFloat = 2.0

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return wing(predicted - target, self.w, self.epsilon).mean()
