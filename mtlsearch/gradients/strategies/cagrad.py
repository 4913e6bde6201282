"""CAGrad: the best worst-case improvement near the average gradient (Liu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, nonnegative_quadratic, shortest_in_hull, solve_linear
from ..strategy import SolvedStrategy, Step


def conflict_averse(gramian: Array, c: float, precision: float) -> Array:
    """argmax_d min_t ⟨g_t, d⟩ over ‖d − g_0‖ ≤ c·‖g_0‖, g_0 = mean(g): gramian (T, T) -> weights (T,) of d.

    Solved in the worst improvement ν itself. The d nearest to g_0 with ⟨g_t, d⟩ ≥ ν for all t is g_0 + Σ y_t·g_t, where
    y ≥ 0 minimises ½·yᵀGy + (Gb − ν)ᵀy, b = 1/T. Its distance to g_0 is a convex function of ν that rises from 0, and
    the answer is where it reaches c·‖g_0‖. While the same tasks have y_t > 0 the square of the distance is a quadratic
    in ν with a closed root, so the search ends after as many steps as it meets sets of tasks; it stops at a relative
    1e-13 in the distance, is kept in a bracket by bisection, and takes at most 100 steps.

    Among several maximisers (a zero gradient, gradients that cancel) this is the one nearest to g_0; with y = λ·w it is
    the paper's g_0 + √φ·g_w/‖g_w‖ wherever that is defined.
    """
    tasks = len(gramian)
    mean = np.full(tasks, 1 / tasks)
    scale = gramian.diagonal().max()
    if scale <= 0:
        return mean
    inner = gramian / scale
    pulls = inner @ mean  # ⟨g_t, g_0⟩
    radius = c * np.sqrt(max(mean @ pulls, 0))
    if radius == 0:
        return mean

    def nearest(worst: float) -> tuple[Array, float]:
        y = nonnegative_quadratic(inner, pulls - worst, precision, bounded=False)
        return (mean, np.inf) if y is None else (y, float(np.sqrt(max(y @ inner @ y, 0))))

    low = float(pulls.min())
    high = float((pulls + radius * np.sqrt(inner.diagonal())).min())
    shortest = shortest_in_hull(inner, precision)
    if shortest @ inner @ shortest <= tasks * precision:
        # The gradients cancel: nothing improves all tasks, and asking for more than 0 cannot be met.
        y, distance = nearest(0.0)
        if distance <= radius:
            return mean + y
        high = min(high, 0.0)
    worst = high
    y = np.zeros(tasks)
    for _ in range(100):
        y, distance = nearest(worst)
        if abs(distance - radius) <= 1e-13 * radius or high - low <= 1e-15:
            break
        low, high = (worst, high) if distance < radius else (low, worst)
        worst = _root_on(inner, pulls, np.flatnonzero(y > 0), radius)
        if not low < worst < high:
            worst = (low + high) / 2
    return mean + y


def _root_on(inner: Array, pulls: Array, support: np.ndarray[Any, Any], radius: float) -> float:
    """The larger ν at which y = ν·p − q on `support` has ‖Σ y_t·g_t‖ = radius; NaN if there is none."""
    if len(support) == 0:
        return float("nan")
    block = inner[np.ix_(support, support)]
    p, q = solve_linear(block, np.stack([np.ones(len(support)), pulls[support]], axis=1)).T
    a, b = p @ block @ p, p @ block @ q
    discriminant = b * b - a * (q @ block @ q - radius**2)
    return float((b + np.sqrt(discriminant)) / a) if discriminant >= 0 and a > 0 else float("nan")


@dataclass(eq=False)
class CAGrad(SolvedStrategy):
    """d = g_0 + √φ·g_w/‖g_w‖ with g_0 the mean gradient, φ = c²‖g_0‖², w on the simplex minimising ⟨g_w, g_0⟩ +
    √φ·‖g_w‖.

    Liu et al. 2021, Algorithm 1: the direction within c·‖g_0‖ of the mean gradient that improves the worst task most. c
    = 0 is the mean. Without the division by 1 + c² that the authors' code adds.
    """

    name: ClassVar[str] = "cagrad"
    c: float = hyperparameter(
        0.5, ge=0, lt=1, search={"uniform": (0.1, 0.9)}, description="radius of the ball around the mean"
    )

    def solve(self, gramian: Array, step: Step) -> Array:
        return conflict_averse(gramian, self.c, step.precision)


INFO = StrategyInfo(
    strategy=CAGrad,
    paper=Paper(
        authors="Liu, Liu, Jin, Stone, Liu",
        year=2021,
        title="Conflict-Averse Gradient Descent for Multi-task Learning",
        venue="NeurIPS 2021",
        arxiv="2110.14048",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
