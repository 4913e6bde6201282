"""DB-MTL: logarithms of the losses, and gradients of equal length (Lin et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..gramian import gramian, norms, weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import RowStrategy, Step, grown_rows, positive


@dataclass(eq=False)
class DBMTL(RowStrategy):
    """α·Σ_t ĝ_t/‖ĝ_t‖ with α = max_t ‖ĝ_t‖ and ĝ_t ← β_k·ĝ_t + (1 − β_k)·∇log L_t.

    Lin et al. 2023, "Dual-Balancing for Multi-Task Learning". β_k = β/k^σ in step k, ĝ = 0 before the first.
    Task-specific parameters get ∇log L_t = ∇L_t / L_t. Losses must be positive. Keeps a gradient for each task (T·P
    numbers), and starts it anew when the set of shared parameters changes.
    """

    name: ClassVar[str] = "db_mtl"
    averages: Tensor | None = field(default=None, init=False, repr=False)
    beta: float = hyperparameter(0.9, ge=0, lt=1, search={"uniform": (0.1, 0.9)}, description="weight of the past")
    sigma: float = hyperparameter(
        0.0, ge=0, search={"choice": (0.0, 0.5)}, description="how fast that weight decays with the step"
    )

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        averages = grown_rows(self.averages, step, jacobian)
        beta = self.beta / (step.index + 1) ** self.sigma
        current = averages[tasks].lerp(jacobian * self.specific_weights(step).to(jacobian)[:, None], 1 - beta)
        averages[tasks] = current
        self.averages = averages
        lengths = norms(gramian(current))
        return weighted_rows(current, range(len(tasks)), torch.where(lengths > 0, lengths.max() / lengths, 0.0))

    def specific_weights(self, step: Step) -> Tensor:
        return 1 / positive(self.name, step.known_losses(self.name))


INFO = StrategyInfo(
    strategy=DBMTL,
    paper=Paper(
        authors="Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang, Kwok",
        year=2023,
        title="Dual-Balancing for Multi-Task Learning",
        venue="Neural Networks",
        arxiv="2308.12029",
    ),
    permutation_equivariant=True,
)
