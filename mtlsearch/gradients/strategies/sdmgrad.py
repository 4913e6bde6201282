"""SDMGrad: a common direction near a preferred one, from three independent samples (Xiao, Ban, Ji 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..gramian import weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import project_on_simplex
from ..strategy import RowStrategy, Step, grown
from .modo import cross_products


@dataclass(eq=False)
class SDMGrad(RowStrategy):
    """J₃ᵀ(w + λ/T)/(1 + λ), w on the simplex by S steps of w ← Π(w − β·J₁J₂ᵀ(w + λ/T)).

    Xiao, Ban and Ji 2023, "Direction-oriented Multi-objective Learning", Algorithm 1, with the average as
    the preferred direction. As in the authors' code the steps have momentum, w goes on from the last step's,
    and J₁J₂ᵀ is divided by the square of the mean of the roots of its positive diagonal, which makes the
    learning rate one for all scales. J₁, J₂, J₃ are gradients of three independent batches: call
    `backward(losses, combine=False)` with each, then `combine()`. Task-specific parameters get the mean of
    the three. A step on a GPU waits for the device once.
    """

    name: ClassVar[str] = "sdmgrad"
    samples: ClassVar[int] = 3
    shares: Tensor | None = field(default=None, init=False, repr=False)
    strength: float = hyperparameter(
        0.3, ge=0, search={"loguniform": (0.01, 10.0)}, description="λ, the pull to the average"
    )
    lr: float = hyperparameter(10.0, gt=0, search={"loguniform": (0.1, 50.0)}, description="β, of the steps on w")
    momentum: float = hyperparameter(0.5, ge=0, lt=1, search={"uniform": (0.0, 0.9)}, description="of the steps on w")
    steps: int = hyperparameter(20, ge=1, search={"randint": (5, 50)}, description="S, the steps on w")

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        products = cross_products(jacobian)
        if not np.isfinite(products).all():
            return torch.full_like(jacobian[0, 0], torch.nan)
        scale = np.sqrt(np.maximum(products.diagonal(), 0)).mean() ** 2
        products = products / scale if scale > 0 else products
        pull = self.strength / len(tasks)
        size = max(len(step.names), max(tasks) + 1)
        shares = grown(self.shares, (size,), torch.empty(0, dtype=torch.float64), 1 / len(tasks))
        w, velocity = shares[tasks].numpy(), np.zeros(len(tasks))
        for _ in range(self.steps):
            velocity = self.momentum * velocity + products @ (w + pull)
            w = project_on_simplex(w - self.lr * velocity)
        shares[tasks] = torch.from_numpy(w)
        self.shares = shares
        return weighted_rows(jacobian[2], range(len(tasks)), (shares[tasks] + pull) / (1 + self.strength))


INFO = StrategyInfo(
    strategy=SDMGrad,
    paper=Paper(
        authors="Xiao, Ban, Ji",
        year=2023,
        title="Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms",
        venue="NeurIPS 2023",
        arxiv="2305.18409",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
