"""GradVac: bring the cosines of gradients up to what they usually are (Wang et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import GramianStrategy, Step, grown
from .pcgrad import random_orders


def vaccinate(gramian: Tensor, orders: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of the paper on the Gramian: weights (T,) and the new targets (T, T).

    gramian (T, T). Row i of `orders` is the order in which gradient i meets the others (its own entry is passed over).
    d_i = Σ_j W_ij·g_j starts at g_i. When it meets g_j with a cosine φ below the target φ̂_ij, W_ij += ‖d_i‖(φ̂·√(1−φ²)
    − φ·√(1−φ̂²)) / (‖g_j‖·√(1−φ̂²)), which makes the cosine φ̂; then φ̂_ij ← (1−β)·φ̂_ij + β·φ. No epsilon: a zero
    gradient, and a target of ±1, which no finite step reaches, change nothing.
    """
    tasks = len(gramian)
    places = torch.nn.functional.one_hot(orders.T, tasks).bool()  # (round, task, whom it meets)
    mixed = torch.eye(tasks, dtype=gramian.dtype, device=gramian.device)
    own = torch.eye(tasks, dtype=torch.bool, device=gramian.device)
    lengths = gramian.diagonal().clamp(min=0).sqrt()
    for place in places:
        product = mixed @ gramian
        length = (product * mixed).sum(1, keepdim=True).clamp(min=0).sqrt()
        scale = length * lengths
        meets = place & ~own & (scale > 0)
        cosine = torch.where(meets, product / scale, 0.0).clamp(-1, 1)
        apart = (1 - targets.square()).clamp(min=0).sqrt()
        below = meets & (cosine < targets) & (apart > 0)
        step = length * (targets * (1 - cosine.square()).sqrt() - cosine * apart) / (lengths * apart)
        mixed = mixed + torch.where(below, step, 0.0)
        targets = torch.where(meets, (1 - beta) * targets + beta * cosine, targets)
    return mixed.sum(0), targets


@dataclass(eq=False)
class GradVac(GramianStrategy):
    """PCGrad with moving targets: each pair's cosine is raised to its exponential moving average.

    Wang et al. 2021, Algorithm 1, over all shared parameters at once (the paper's "whole_model"). Targets start at 0,
    where the first step is PCGrad's. Orders come from a generator keyed by (seed, step).
    """

    name: ClassVar[str] = "gradvac"
    targets: Tensor | None = field(default=None, init=False, repr=False)
    beta: float = hyperparameter(
        0.01, ge=0, le=1, search={"loguniform": (1e-3, 0.5)}, description="rate of the moving average"
    )

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        size = max(len(step.names), max(tasks) + 1)
        targets = grown(self.targets, (size, size), gramian)
        orders = random_orders(len(tasks), step).to(gramian.device, non_blocking=True)
        chosen = torch.tensor(tasks).to(gramian.device, non_blocking=True)
        rows, columns = chosen[:, None], chosen[None]
        weights, targets[rows, columns] = vaccinate(gramian, orders, targets[rows, columns], self.beta)
        self.targets = targets
        return weights


INFO = StrategyInfo(
    strategy=GradVac,
    paper=Paper(
        authors="Wang, Tsvetkov, Firat, Cao",
        year=2021,
        title=(
            "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models"
        ),
        venue="ICLR 2021",
        arxiv="2010.05874",
    ),
    scale_equivariant=True,
)
