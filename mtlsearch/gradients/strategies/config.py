"""ConFIG: a direction with equal cosines to all gradients (Liu, Chu, Thuerey 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..registry import Paper, StrategyInfo
from ..solvers import Array, pseudo_inverse
from ..strategy import SolvedStrategy, Step


@dataclass(eq=False)
class ConFIG(SolvedStrategy):
    """(Σ_t ⟨g_t, u⟩)·u, where the unit vector u has the same cosine with every g_t.

    Liu, Chu and Thuerey 2024, equation 2: u is the direction of [g_1/‖g_1‖, …]^(−⊤)·1. In the cosines C of the
    gradients: u ∝ Σ_t y_t·g_t/‖g_t‖ with y = C⁺·1. A zero gradient takes no part.
    """

    name: ClassVar[str] = "config"

    def solve(self, gramian: Array, step: Step) -> Array:
        weights = np.zeros(len(gramian))
        nonzero = np.flatnonzero(gramian.diagonal() > 0)
        if len(nonzero) == 0:
            return weights
        lengths = np.sqrt(gramian.diagonal()[nonzero])
        cosines = gramian[np.ix_(nonzero, nonzero)] / np.outer(lengths, lengths)
        y = pseudo_inverse(cosines, step.precision) @ np.ones(len(nonzero))
        square = y @ cosines @ y
        if square > 0:
            # Length Σ_t ⟨g_t, u⟩ over ‖y‖, times y in units of the gradients.
            weights[nonzero] = (lengths @ cosines @ y) / square * y / lengths
        return weights


INFO = StrategyInfo(
    strategy=ConFIG,
    paper=Paper(
        authors="Liu, Chu, Thuerey",
        year=2024,
        title="ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks",
        venue="ICLR 2025",
        arxiv="2408.11104",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
