"""PBI: penalty-based boundary intersection (Zhang, Li 2007)."""

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
class PBI(Scalarization):
    """d_1 + θ·d_2 with d_1 = ⟨L − z, r⟩/‖r‖ and d_2 = ‖L − z − d_1·r/‖r‖‖: along and off the direction r.

    Zhang and Li 2007, "MOEA/D", penalty-based boundary intersection, for one direction r, 1/T by default. On the
    direction itself, where d_2 has no derivative, that of 0 is taken.
    """

    name: ClassVar[str] = "pbi"
    theta: float = hyperparameter(
        5.0,
        ge=0,
        search={"loguniform": (0.1, 10.0)},
        description="penalty on the distance from the direction",
    )
    preference: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, gt=0, description="r of each task; None is 1/T"
    )
    ideal: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, description="z of each task, a lower bound of its loss; None is 0"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        check_per_task("preference", self.preference, tasks)
        check_per_task("ideal", self.ideal, tasks)

    def scalarize(self, losses: Tensor, step: Step) -> Tensor:
        preference = losses.new_tensor(per_task("preference", self.preference, step, 1 / len(losses)))
        direction = preference / preference.norm()
        above = losses - losses.new_tensor(per_task("ideal", self.ideal, step, 0.0))
        along = above @ direction
        return along + self.theta * (above - along * direction).norm()


INFO = StrategyInfo(
    strategy=PBI,
    paper=Paper(
        authors="Zhang, Li",
        year=2007,
        title="MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
        venue="IEEE Transactions on Evolutionary Computation 11(6)",
    ),
    permutation_equivariant=True,
)
