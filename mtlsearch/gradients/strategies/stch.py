"""STCH: smooth Tchebycheff scalarization (Lin et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..per_task import check_per_task, per_task
from ..registry import Paper, StrategyInfo
from ..strategy import Scalarization, Step


@dataclass(eq=False)
class STCH(Scalarization):
    """μ·log Σ_t exp(λ_t·(L_t − z_t)/μ): a smooth maximum, which the worst task dominates.

    Lin et al. 2024, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization". λ is the preference, z the
    ideal point. λ_t = 1/T by default, so weights are λ times a softmax. (The authors' code for multi-task learning
    feeds it log(L_t/nadir_t) after warm-up epochs; give such losses for that.)
    """

    name: ClassVar[str] = "stch"
    mu: float = hyperparameter(
        0.1, gt=0, search={"loguniform": (0.01, 1.0)}, description="smoothing; small is close to the maximum"
    )
    preference: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, ge=0, description="λ of each task; None is 1/T"
    )
    ideal: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, description="z of each task, a lower bound of its loss; None is 0"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        check_per_task("preference", self.preference, tasks)
        check_per_task("ideal", self.ideal, tasks)

    def scalarize(self, losses: Tensor, step: Step) -> Tensor:
        preference = losses.new_tensor(per_task("preference", self.preference, step, 1 / len(losses)))
        ideal = losses.new_tensor(per_task("ideal", self.ideal, step, 0.0))
        return self.mu * torch.logsumexp(preference * (losses - ideal) / self.mu, 0)


INFO = StrategyInfo(
    strategy=STCH,
    paper=Paper(
        authors="Lin, Zhang, Yang, Liu, Wang, Zhang",
        year=2024,
        title="Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
        venue="ICML 2024",
        arxiv="2402.19078",
    ),
    permutation_equivariant=True,
)
