"""MoDo: MGDA's weights from two independent samples (Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..gramian import gramian, weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, project_on_simplex
from ..strategy import RowStrategy, Step, grown


def cross_products(samples: Tensor) -> Array:
    """J₁·J₂ᵀ (T, T) on the host, as accurate as a Gramian: samples (2 or more, T, P)."""
    tasks = samples.shape[1]
    return gramian(samples[:2].flatten(0, 1))[:tasks, tasks:].cpu().numpy()


@dataclass(eq=False)
class MoDo(RowStrategy):
    """½(J₁ + J₂)ᵀλ with λ ← Π(λ − γ·(J₁J₂ᵀ + ρI)·λ), Π the projection on the simplex, λ = 1/T at first.

    Chen et al. 2023, "Three-Way Trade-Off in Multi-Objective Learning", equation 2.9. J₁ and J₂ are
    gradients of two independent batches, so J₁J₂ᵀ is an unbiased estimate of the Gramian: call
    `backward(losses, combine=False)` with each, then `combine()`. Task-specific parameters get the mean of
    both. A step on a GPU waits for the device once.
    """

    name: ClassVar[str] = "modo"
    samples: ClassVar[int] = 2
    shares: Tensor | None = field(default=None, init=False, repr=False)
    gamma: float = hyperparameter(0.001, gt=0, search={"loguniform": (1e-4, 1.0)}, description="learning rate of λ")
    rho: float = hyperparameter(0.1, ge=0, search={"choice": (0.0, 0.01, 0.1)}, description="regulariser of λ")

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        products = cross_products(jacobian)
        if not np.isfinite(products).all():
            return torch.full_like(jacobian[0, 0], torch.nan)
        size = max(len(step.names), max(tasks) + 1)
        shares = grown(self.shares, (size,), torch.empty(0, dtype=torch.float64), 1 / len(tasks))
        chosen = shares[tasks].numpy()
        moved = chosen - self.gamma * (products @ chosen + self.rho * chosen)
        shares[tasks] = torch.from_numpy(project_on_simplex(moved))
        self.shares = shares
        return weighted_rows(jacobian.mean(0), range(len(tasks)), shares[tasks])


INFO = StrategyInfo(
    strategy=MoDo,
    paper=Paper(
        authors="Chen, Fernando, Ying, Chen",
        year=2023,
        title=("Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and Conflict-Avoidance"),
        venue="NeurIPS 2023",
        arxiv="2305.20057",
    ),
    permutation_equivariant=True,
)
