"""PCD: the first task comes first, the others get at least a share of their progress (arXiv 2606.29521)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, nonnegative_quadratic
from ..strategy import SolvedStrategy, Step, grown


def constrained_direction(gramian: Array, tau: float, precision: float) -> Array:
    """argmin ‖d − g_1‖ with ⟨g_j, d⟩ ≥ τ·‖g_j‖² for all j > 1: gramian (T, T) -> weights (T,) of d.

    d = g_1 + Σ_j μ_j·g_j, where μ ≥ 0 minimises ½·μᵀGμ − Σ_j μ_j·(τ·‖g_j‖² − ⟨g_j, g_1⟩). Constraints that contradict
    each other (opposed secondary gradients) are dropped: d = g_1.
    """
    others = gramian[1:, 1:]
    multipliers = nonnegative_quadratic(others, gramian[1:, 0] - tau * others.diagonal(), precision, bounded=False)
    return np.concatenate([[1.0], np.zeros(len(others)) if multipliers is None else multipliers])


@dataclass(eq=False)
class PCD(SolvedStrategy):
    """The d nearest to g̃_1 with ⟨g̃_j, d⟩ ≥ τ·‖g̃_j‖² for every other task j, at the length of g_1.

    Priority-Constrained Descent, as TorchJD documents and implements it: g̃_i = g_i/√(v_i + ε), with v_i the
    bias-corrected moving average of ‖g_i‖², β its decay. The first of the tasks that take part is the one to follow.
    Zero where its gradient is zero, or where d is zero to rounding.
    """

    name: ClassVar[str] = "pcd"
    averages: Tensor | None = field(default=None, init=False, repr=False)
    counts: Tensor | None = field(default=None, init=False, repr=False)
    tau: float = hyperparameter(
        0.02, ge=0, le=1, search={"loguniform": (0.005, 0.5)}, description="share of progress of the others"
    )
    beta: float = hyperparameter(
        0.999, ge=0, lt=1, search={"choice": (0.9, 0.99, 0.999)}, description="decay of the moving averages"
    )
    epsilon: float = hyperparameter(1e-8, ge=0, description="added to a mean square norm")

    def solve(self, gramian: Array, step: Step) -> Array:
        tasks = list(step.tasks)
        size = max(len(step.names), max(tasks) + 1)
        host = torch.empty(0, dtype=torch.float64)
        averages, counts = (grown(state, (size,), host) for state in (self.averages, self.counts))
        squares = torch.from_numpy(gramian.diagonal().copy())
        averages[tasks] = self.beta * averages[tasks] + (1 - self.beta) * squares
        counts[tasks] += 1
        self.averages = averages
        self.counts = counts
        mean = averages[tasks] / (1 - self.beta ** counts[tasks])
        scales = torch.where(mean + self.epsilon > 0, (mean + self.epsilon) ** -0.5, 0.0).numpy()
        scaled = gramian * np.outer(scales, scales)
        if scaled[0, 0] <= 0:
            return np.zeros(len(tasks))
        weights = constrained_direction(scaled, self.tau, step.precision)
        square = weights @ scaled @ weights
        if square <= len(tasks) * step.precision * (weights @ np.sqrt(scaled.diagonal())) ** 2:
            return np.zeros(len(tasks))
        return weights * scales * np.sqrt(gramian[0, 0] / square)


INFO = StrategyInfo(
    strategy=PCD,
    paper=Paper(
        authors="see arXiv",
        year=2026,
        title=(
            "Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical "
            "Multi-Objective Optimization"
        ),
        venue="TMLR 2026",
        arxiv="2606.29521",
    ),
)
