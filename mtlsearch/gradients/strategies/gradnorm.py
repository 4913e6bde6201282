"""GradNorm: learned loss weights that bring gradient norms together (Chen et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..gramian import norms
from ..hyperparameters import hyperparameter
from ..learned import LearnedScalars
from ..registry import Paper, StrategyInfo
from ..strategy import GramianStrategy, Step, grown


@dataclass(eq=False)
class GradNorm(LearnedScalars, GramianStrategy):
    """Loss weights w_t, trained on Σ_t |w_t·‖g_t‖ − Ḡ·r_t^α| with the target held constant.

    Chen et al. 2018, Algorithm 1: Ḡ is the mean of the norms w_t·‖g_t‖, and r_t the inverse training rate: L_t/L_t(0)
    over its mean. The norms are those over all shared parameters (the paper takes the last shared layer to save time;
    name it in shared=… for that, and others get the weighted sum too). The weights reach task-specific parameters,
    start at 1, join the wrapped optimizer as a group of their own without weight decay, and are scaled back to a sum of
    T before each step; one that a step has made negative counts as 0. L_t(0) is the first loss seen; losses must not be
    0.
    """

    name: ClassVar[str] = "gradnorm"
    first_losses: Tensor | None = field(default=None, init=False, repr=False)
    alpha: float = hyperparameter(
        1.5, ge=0, search={"uniform": (0.0, 3.0)}, description="strength of the pull to a common rate"
    )

    def initial(self) -> float:
        return 1.0

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        losses = step.known_losses(self.name).to(gramian)
        tasks = list(step.tasks)
        size = max(len(step.names), max(tasks) + 1)
        first = grown(self.first_losses, (size,), gramian, torch.nan)
        first[tasks] = torch.where(first[tasks].isnan(), losses, first[tasks])
        self.first_losses = first
        weights = self._normalised(step).to(gramian)
        lengths = norms(gramian)
        rates = losses / first[tasks]
        own = weights * lengths
        target = own.mean() * (rates / rates.mean()) ** self.alpha
        self._gradients = (own - target).sign() * lengths
        return weights

    def specific_weights(self, step: Step) -> Tensor:
        return self.scalars(step.tasks).detach()

    def own_gradients(self, step: Step) -> list[Tensor | None]:
        gradients: list[Tensor | None] = [None] * len(self.parameters())
        for task, value in zip(step.tasks, self._gradients):
            gradients[task] = value
        return gradients

    @torch.no_grad()
    def _normalised(self, step: Step) -> Tensor:
        """The weights of the step's tasks, after all of them have been scaled to a sum of T."""
        self.scalars(step.tasks)  # or the error that says what is missing
        clipped = torch.stack([*self.parameters()]).clamp(min=0)
        total = clipped.sum()
        scaled = torch.where(total > 0, clipped * len(clipped) / total, 1.0)
        for parameter, value in zip(self.parameters(), scaled):
            parameter.copy_(value)
        return scaled[list(step.tasks)]


INFO = StrategyInfo(
    strategy=GradNorm,
    paper=Paper(
        authors="Chen, Badrinarayanan, Lee, Rabinovich",
        year=2018,
        title="GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
        venue="ICML 2018",
        arxiv="1711.02257",
    ),
    permutation_equivariant=True,
)
