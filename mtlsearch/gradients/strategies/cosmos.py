"""COSMOS: a weighted sum with a reward for losses in proportion to the weights (Ruchte, Grabocka 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..hyperparameters import hyperparameter
from ..per_task import check_per_task, per_task
from ..registry import Paper, StrategyInfo
from ..strategy import Scalarization, Step


@dataclass(eq=False)
class COSMOS(Scalarization):
    """Σ_t r_t·L_t − λ·cos(r, L).

    Ruchte and Grabocka 2021, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning", for one fixed
    preference r, 1/T by default. (The whole method draws r anew for each batch and gives it to the model as an input;
    that is up to the model.)
    """

    name: ClassVar[str] = "cosmos"
    penalty_weight: float = hyperparameter(
        1.0, ge=0, search={"loguniform": (0.01, 8.0)}, description="λ, the weight of the cosine"
    )
    preference: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, gt=0, description="r of each task; None is 1/T"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        check_per_task("preference", self.preference, tasks)

    def scalarize(self, losses: Tensor, step: Step) -> Tensor:
        preference = losses.new_tensor(per_task("preference", self.preference, step, 1 / len(losses)))
        along = preference @ losses
        return along - self.penalty_weight * along / (preference.norm() * losses.norm())


INFO = StrategyInfo(
    strategy=COSMOS,
    paper=Paper(
        authors="Ruchte, Grabocka",
        year=2021,
        title="Scalable Pareto Front Approximation for Deep Multi-Objective Learning",
        venue="ICDM 2021",
        arxiv="2103.13392",
    ),
    permutation_equivariant=True,
)
