"""DualProj: project the mean gradient onto the dual cone (Lopez-Paz, Ranzato 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..registry import Paper, StrategyInfo
from ..solvers import Array
from ..strategy import SolvedStrategy, Step
from .upgrad import project_on_dual_cone


@dataclass(eq=False)
class DualProj(SolvedStrategy):
    """π(mean(g)), where π projects onto the dual cone {d : ⟨g_i, d⟩ ≥ 0 for all i}.

    Lopez-Paz and Ranzato 2017, equation 11, with the mean gradient in place of the current task's; named so by Quinton
    and Rey (2024).
    """

    name: ClassVar[str] = "dualproj"

    def solve(self, gramian: Array, step: Step) -> Array:
        mean = np.full(len(gramian), 1 / len(gramian))
        return project_on_dual_cone(gramian, mean, step.precision)


INFO = StrategyInfo(
    strategy=DualProj,
    paper=Paper(
        authors="Lopez-Paz, Ranzato",
        year=2017,
        title="Gradient Episodic Memory for Continual Learning",
        venue="NeurIPS 2017",
        arxiv="1706.08840",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
