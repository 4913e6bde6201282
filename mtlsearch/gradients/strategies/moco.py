"""MoCo: MGDA on moving averages of the gradients (Fernando et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..gramian import gramian, weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import project_on_simplex
from ..strategy import RowStrategy, Step, grown, grown_rows


@dataclass(eq=False)
class MoCo(RowStrategy):
    """Yλ with y_t ← y_t − β_k·(y_t − g_t) and λ ← Π(λ − γ_k·(YᵀY + ρI)·λ), Π the projection on the simplex.

    Fernando et al. 2023, "Mitigating Gradient Bias in Multi-objective Learning", Algorithm 1, without the ball that y
    is projected on when a bound on the gradients is known. β_k = β/k^½ and γ_k = γ/k^½ in step k, y = 0 and λ = 1/T
    before the first, as in the authors' code; that code also puts softmax in place of Π and scales gradients by their
    losses, which the paper does not. γ works on squared gradient norms: it must be small where they are large. Keeps a
    gradient for each task (T·P numbers), and starts it anew when the set of shared parameters changes. A step on a GPU
    waits for the device once.
    """

    name: ClassVar[str] = "moco"
    tracked: Tensor | None = field(default=None, init=False, repr=False)
    shares: Tensor | None = field(default=None, init=False, repr=False)
    beta: float = hyperparameter(
        0.5, gt=0, le=1, search={"uniform": (0.1, 1.0)}, description="rate of y in the first step"
    )
    gamma: float = hyperparameter(
        0.1, ge=0, search={"loguniform": (1e-3, 10.0)}, description="rate of λ in the first step"
    )
    rho: float = hyperparameter(0.0, ge=0, search={"choice": (0.0, 0.01, 0.1)}, description="regulariser of λ")

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        decay = (step.index + 1) ** -0.5
        tracked = grown_rows(self.tracked, step, jacobian)
        current = tracked[tasks].lerp(jacobian, self.beta * decay)
        inner = gramian(current).cpu().numpy()
        if not np.isfinite(inner).all():
            return torch.full_like(jacobian[0], torch.nan)
        tracked[tasks] = current
        shares = grown(self.shares, (len(tracked),), torch.empty(0, dtype=torch.float64), 1 / len(tasks))
        chosen = shares[tasks].numpy()
        moved = chosen - self.gamma * decay * (inner @ chosen + self.rho * chosen)
        shares[tasks] = torch.from_numpy(project_on_simplex(moved))
        self.tracked = tracked
        self.shares = shares
        return weighted_rows(current, range(len(tasks)), shares[tasks])


INFO = StrategyInfo(
    strategy=MoCo,
    paper=Paper(
        authors="Fernando, Shen, Liu, Chaudhury, Murugesan, Chen",
        year=2023,
        title="Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach",
        venue="ICLR 2023",
        arxiv="2210.12624",
    ),
    permutation_equivariant=True,
)
