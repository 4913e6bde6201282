"""What every loss section has in common."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat

from mtlsearch.training.schema import Section


class WeightedLoss(Section):
    """A loss with its static weight λ, which the caller multiplies in; the call itself is unweighted."""

    weight: NonNegativeFloat = 1.0

    def __call__(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Both of one shape -> a scalar."""
        raise AssertionError("every loss says how it is computed")
