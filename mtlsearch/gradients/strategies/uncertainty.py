"""Uncertainty weighting: loss weights from learned variances (Kendall, Gal, Cipolla 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..learned import LearnedScalars
from ..registry import Paper, StrategyInfo
from ..strategy import LossStrategy, Step


@dataclass(eq=False)
class Uncertainty(LearnedScalars, LossStrategy):
    """Σ_t ½·exp(−s_t)·L_t + ½·s_t with a learned log-variance s_t = log σ_t² for each task.

    Kendall et al. 2018, equation 7 (Gaussian likelihood): L_t / 2σ_t² + log σ_t, written in s_t, which cannot divide by
    zero. The same expression serves classification losses, for which the paper has 1/σ_t² instead of 1/2σ_t²: that is a
    shift of s_t by log 2 and of the optimum by nothing else.

    The log-variances join the wrapped optimizer as a parameter group of their own, without weight decay (decay would
    pull the variances to 1). ½·s_t is added once a step for each task that takes part, however many micro-batches the
    step has; an absent task's s_t keeps `.grad` None and does not move.
    """

    name: ClassVar[str] = "uncertainty"
    initial_log_variance: float = hyperparameter(
        0.0,
        ge=-10,
        le=10,
        search={"uniform": (-1.0, 1.0)},
        description="s_t before training, the same for each task",
    )

    def initial(self) -> float:
        return self.initial_log_variance

    @property
    def log_variances(self) -> dict[str, float]:
        """The current s_t by task name."""
        return self.learned

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return 0.5 * torch.exp(-self.scalars(step.tasks))

    def penalty(self, tasks: Sequence[int]) -> Tensor | None:
        return 0.5 * self.scalars(tasks).sum() if tasks else None


INFO = StrategyInfo(
    strategy=Uncertainty,
    paper=Paper(
        authors="Kendall, Gal, Cipolla",
        year=2018,
        title="Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
        venue="CVPR 2018",
        arxiv="1705.07115",
    ),
)
