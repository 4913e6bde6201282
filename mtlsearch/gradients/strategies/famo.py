"""FAMO: all losses fall at the same rate, without task gradients (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..per_task import check_per_task, per_task
from ..registry import Paper, StrategyInfo
from ..strategy import LossStrategy, Step, grown, positive

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's own defaults, as in the authors' code


@dataclass(eq=False)
class FAMO(LossStrategy):
    """Weights c·z_t/(L_t − b_t) with z = softmax(ξ) and c = 1/Σ_t z_t/(L_t − b_t), which sums them to 1.

    Liu et al. 2023, Algorithm 1: ξ moves so that tasks whose log loss fell less in a step get more of the next: its
    gradient is the Jacobian of softmax times δ_t = log(L_t − b_t) − log(L'_t − b_t), with Adam and weight decay γ as in
    the authors' code. L' are the losses after the step: those of the next step's batch, which costs no forward of its
    own (the authors' code evaluates the same batch again). A task that is absent from either of two steps counts with δ
    = 0. Losses must exceed their bound b.
    """

    name: ClassVar[str] = "famo"
    needs_all_losses: ClassVar[bool] = True
    # `previous`: L − b of the last step, NaN where a task was absent; `moments`: Adam's two, and its steps.
    logits: Tensor | None = field(default=None, init=False, repr=False)
    previous: Tensor | None = field(default=None, init=False, repr=False)
    moments: Tensor | None = field(default=None, init=False, repr=False)
    steps: Tensor | None = field(default=None, init=False, repr=False)
    lr: float = hyperparameter(0.025, ge=0, search={"loguniform": (1e-3, 0.1)}, description="learning rate of ξ")
    gamma: float = hyperparameter(1e-3, ge=0, search={"loguniform": (1e-5, 1e-1)}, description="weight decay of ξ")
    bounds: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, description="b, a lower bound of each task's loss; None is 0"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        check_per_task("bounds", self.bounds, tasks)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        size = max(len(step.names), max(tasks) + 1)
        above = positive(self.name, losses - losses.new_tensor(per_task("bounds", self.bounds, step, 0.0)))
        current = losses.new_full((size,), torch.nan)
        current[tasks] = above
        logits = grown(self.logits, (size,), losses)
        if self.previous is not None:
            logits = self._moved(logits, grown(self.previous, (size,), losses, torch.nan), current)
        self.logits, self.previous = logits, current
        z = logits[tasks].softmax(0)
        return z / above / (z / above).sum()

    def _moved(self, logits: Tensor, before: Tensor, after: Tensor) -> Tensor:
        fell = (before.log() - after.log()).nan_to_num(0.0)
        z = logits.softmax(0)
        gradient = z * (fell - z @ fell) + self.gamma * logits
        first, second = grown(self.moments, (2, len(logits)), logits)
        first = _BETA1 * first + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient.square()
        steps = 1 if self.steps is None else int(self.steps) + 1
        self.moments, self.steps = torch.stack([first, second]), torch.tensor(steps)
        scale = (second / (1 - _BETA2**steps)).sqrt() + _EPSILON
        return logits - self.lr * first / (1 - _BETA1**steps) / scale


INFO = StrategyInfo(
    strategy=FAMO,
    paper=Paper(
        authors="Liu, Feng, Stone, Liu",
        year=2023,
        title="FAMO: Fast Adaptive Multitask Optimization",
        venue="NeurIPS 2023",
        arxiv="2306.03792",
    ),
    permutation_equivariant=True,
)
