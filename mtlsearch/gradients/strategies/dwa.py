"""DWA: losses that fall slowly get more weight (Liu, Johns, Davison 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import LossStrategy, Step, grown


@dataclass(eq=False)
class DWA(LossStrategy):
    """w_k = K·softmax(r/T)_k with r_k = L_k(e−1)/L_k(e−2), the mean losses of the last two epochs.

    Liu, Johns and Davison 2019, "End-to-End Multi-Task Learning with Attention", equation 7. An epoch is
    `period` steps: set it to the steps of yours. Weights are 1 for the first two, and a task that was absent
    from one of them, or whose mean loss there was 0, counts as neither rising nor falling (r = 1).
    """

    name: ClassVar[str] = "dwa"
    needs_all_losses: ClassVar[bool] = True
    # Rows of `means`: the last epoch but one, the last. Rows of `sums`: losses and how many, of this one.
    means: Tensor | None = field(default=None, init=False, repr=False)
    sums: Tensor | None = field(default=None, init=False, repr=False)
    steps: Tensor | None = field(default=None, init=False, repr=False)
    temperature: float = hyperparameter(
        2.0, gt=0, search={"loguniform": (0.5, 10.0)}, description="T; large makes the weights equal"
    )
    period: int = hyperparameter(100, ge=1, description="steps of an epoch")

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        size = max(len(step.names), max(tasks) + 1)
        means, sums = (grown(state, (2, size), losses) for state in (self.means, self.sums))
        steps = 0 if self.steps is None else int(self.steps)
        if steps and steps % self.period == 0:
            means = torch.stack([means[1], torch.where(sums[1] > 0, sums[0] / sums[1], 0.0)])
            sums = torch.zeros_like(sums)
        sums[0, tasks] += losses
        sums[1, tasks] += 1
        self.means, self.sums, self.steps = means, sums, torch.tensor(steps + 1)
        older, newer = means[:, tasks]
        rates = torch.where((older != 0) & (newer != 0), newer / older, 1.0)
        return len(tasks) * (rates / self.temperature).softmax(0)


INFO = StrategyInfo(
    strategy=DWA,
    paper=Paper(
        authors="Liu, Johns, Davison",
        year=2019,
        title="End-to-End Multi-Task Learning with Attention",
        venue="CVPR 2019",
        arxiv="1803.10704",
    ),
    permutation_equivariant=True,
)
