"""MGDA: the shortest vector in the convex hull of the gradients (Désidéri 2012; Sener, Koltun 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..registry import Paper, StrategyInfo
from ..solvers import Array, shortest_in_hull
from ..strategy import SolvedStrategy, Step


@dataclass(eq=False)
class MGDA(SolvedStrategy):
    """min_w ‖Σ_t w_t·g_t‖² over w ≥ 0, Σ w = 1.

    Sener and Koltun 2018, equation 3 (the "MGDA-UB" of the paper takes gradients of the representation; this is the
    plain form over the shared parameters). They and TorchJD stop a Frank-Wolfe iteration early; here the minimiser is
    exact up to rounding. Zero, and training stands still, where one gradient is zero or the gradients cancel: that is
    what the definition says.
    """

    name: ClassVar[str] = "mgda"

    def solve(self, gramian: Array, step: Step) -> Array:
        return shortest_in_hull(gramian, step.precision)


INFO = StrategyInfo(
    strategy=MGDA,
    paper=Paper(
        authors="Sener, Koltun",
        year=2018,
        title="Multi-Task Learning as Multi-Objective Optimization",
        venue="NeurIPS 2018",
        arxiv="1810.04650",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
