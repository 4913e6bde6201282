"""FairGrad: α-fair allocation of the improvement among tasks (Ban, Ji 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, power_equation
from ..strategy import SolvedStrategy, Step


@dataclass(eq=False)
class FairGrad(SolvedStrategy):
    """w > 0 with G·w = w^(−1/α).

    Ban and Ji 2024, equation 4. α = 1 is proportional fairness (Nash-MTL without its limit on the norm), α = 2 minimum
    potential delay, α → ∞ max-min fairness; from 0.5 to 10 here, where weights fit into float64. A zero gradient takes
    no part. The authors and TorchJD minimise the residual with scipy; here damped Newton on the equivalent convex
    problem reaches rounding.
    """

    name: ClassVar[str] = "fairgrad"
    alpha: float = hyperparameter(
        1.0, ge=0.5, le=10, search={"loguniform": (0.5, 10.0)}, description="kind of fairness"
    )

    def solve(self, gramian: Array, step: Step) -> Array:
        return power_equation(gramian, 1 / self.alpha, step.precision)


INFO = StrategyInfo(
    strategy=FairGrad,
    paper=Paper(
        authors="Ban, Ji",
        year=2024,
        title="Fair Resource Allocation in Multi-Task Learning",
        venue="ICML 2024",
        arxiv="2402.15638",
    ),
    permutation_equivariant=True,
)
