"""UPGrad: project each gradient onto the dual cone, and take the mean (Quinton, Rey 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..registry import Paper, StrategyInfo
from ..solvers import Array, nonnegative_quadratic
from ..strategy import SolvedStrategy, Step


def project_on_dual_cone(gramian: Array, weights: Array, precision: float) -> Array:
    """v (T,) with Jᵀv the projection of Jᵀ·weights onto {d : J·d ≥ 0}: argmin vᵀGv over v ≥ weights.

    Quinton and Rey 2024, Proposition 1. Tolerance and bound of `nonnegative_quadratic`, in v − weights.
    """
    scale = gramian.diagonal().max()
    if scale <= 0:
        return weights
    added = nonnegative_quadratic(gramian / scale, gramian @ weights / scale, precision)
    assert added is not None  # vᵀGv is bounded below
    return weights + added


@dataclass(eq=False)
class UPGrad(SolvedStrategy):
    """(1/T)·Σ_t π(g_t), where π projects onto the dual cone {d : ⟨g_i, d⟩ ≥ 0 for all i}.

    Quinton and Rey 2024, "Jacobian Descent for Multi-Objective Optimization". The result conflicts with no task.
    TorchJD regularises the quadratic programs by 1e-4; here they are exact up to rounding.
    """

    name: ClassVar[str] = "upgrad"

    def solve(self, gramian: Array, step: Step) -> Array:
        units = np.eye(len(gramian)) / len(gramian)
        return np.sum([project_on_dual_cone(gramian, unit, step.precision) for unit in units], axis=0)


PAPER = Paper(
    authors="Quinton, Rey",
    year=2024,
    title="Jacobian Descent for Multi-Objective Optimization",
    arxiv="2406.16232",
)

INFO = StrategyInfo(strategy=UPGrad, paper=PAPER, scale_equivariant=True, permutation_equivariant=True)
