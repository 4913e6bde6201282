"""Nash-MTL: the Nash bargaining solution between the tasks (Navon et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, power_equation
from ..strategy import SolvedStrategy, Step


@dataclass(eq=False)
class NashMTL(SolvedStrategy):
    """w > 0 with G·w = 1/w: every task gains the same relative utility, ⟨g_t, d⟩ = 1/w_t.

    Navon et al. 2022, Claim 3.1. The output does not change with the scale of any loss, and its norm is √T; the
    authors' code shortens it to `max_norm`. They solve by a sequence of convex programs that stops at 1e-3; here damped
    Newton reaches rounding (see `solvers.power_equation`). A zero gradient takes no part. To save time, recompute
    weights every k steps as the authors do with `update_every`, a setting of the engine where it has one.
    """

    name: ClassVar[str] = "nash_mtl"
    max_norm: float = hyperparameter(
        1.0,
        ge=0,
        search={"uniform": (0.5, 3.0)},
        description="largest norm of the combined gradient; 0 for no limit",
    )

    def solve(self, gramian: Array, step: Step) -> Array:
        weights = power_equation(gramian, 1.0, step.precision)
        norm = np.sqrt(np.count_nonzero(weights))  # wᵀGw = Σ w·(1/w)
        return weights if self.max_norm == 0 or norm <= self.max_norm else weights * (self.max_norm / norm)


INFO = StrategyInfo(
    strategy=NashMTL,
    paper=Paper(
        authors="Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya",
        year=2022,
        title="Multi-Task Learning as a Bargaining Game",
        venue="ICML 2022",
        arxiv="2202.01017",
    ),
    permutation_equivariant=True,
)
