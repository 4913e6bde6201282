"""Learning-rate schedules of torch.optim, stepped once per optimizer step.

Every length is a fraction of the run, so that one schedule means the same at 6 epochs and at 80: the published
"decay at epochs 40 and 50 of 80" is `milestones: [0.5, 0.625]` everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from mtlsearch.training.schema import Section

Share = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


class _WithWarmup(Section):
    """A linear warm-up from `warmup_factor` times the peak, over the first `warmup` of the run."""

    warmup: Share = 0.0
    warmup_factor: Factor = 0.02

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        warm = round(self.warmup * total_steps)
        main = self._after_warmup(optimizer, total_steps, warm)
        if warm == 0:
            return main
        rise = LinearLR(optimizer, start_factor=self.warmup_factor, total_iters=warm)
        return SequentialLR(optimizer, [rise, main], milestones=[warm])

    def _after_warmup(self, optimizer: Optimizer, total_steps: int, warm: int) -> LRScheduler:
        raise AssertionError("every schedule says how it goes on after its warm-up")


class MultiStep(_WithWarmup):
    """Multiply by `gamma` at each milestone, given as fractions of the whole run, warm-up included."""

    name: Literal["multistep"] = "multistep"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]]
    gamma: Factor = 0.1

    @model_validator(mode="after")
    def _milestones_follow_the_warmup(self) -> MultiStep:
        if self.milestones != sorted(self.milestones) or (self.milestones and self.milestones[0] < self.warmup):
            raise ValueError(f"milestones must rise and lie after the warm-up of {self.warmup}, got {self.milestones}")
        return self

    def _after_warmup(self, optimizer: Optimizer, total_steps: int, warm: int) -> LRScheduler:
        steps = [max(1, round(milestone * total_steps)) - warm for milestone in self.milestones]
        return MultiStepLR(optimizer, milestones=steps, gamma=self.gamma)


class Cosine(_WithWarmup):
    """Half a cosine from the peak to `final_factor` times the peak."""

    name: Literal["cosine"] = "cosine"
    final_factor: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def _after_warmup(self, optimizer: Optimizer, total_steps: int, warm: int) -> LRScheduler:
        peak = max(group["initial_lr"] if "initial_lr" in group else group["lr"] for group in optimizer.param_groups)
        return CosineAnnealingLR(optimizer, T_max=max(1, total_steps - warm), eta_min=self.final_factor * peak)


class Poly(_WithWarmup):
    """(1 − progress)^power."""

    name: Literal["poly"] = "poly"
    power: PositiveFloat = 2.0

    def _after_warmup(self, optimizer: Optimizer, total_steps: int, warm: int) -> LRScheduler:
        return PolynomialLR(optimizer, total_iters=max(1, total_steps - warm), power=self.power)


class OneCycle(Section):
    """Smith & Topin 2018: up to the optimizer's learning rate over `pct_start` of the run, then down to nearly 0."""

    name: Literal["onecycle"] = "onecycle"
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1)] = 1.0e4

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        peaks = [group["lr"] for group in optimizer.param_groups]
        # torch's own formula divides by zero when the rise takes less than a step
        pct_start = min(max(self.pct_start, 2 / max(total_steps, 3)), 1 - 1 / max(total_steps, 3))
        return OneCycleLR(
            optimizer,
            max_lr=peaks,
            total_steps=max(total_steps, 3),
            pct_start=pct_start,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
            cycle_momentum=False,
        )


class Constant(_WithWarmup):
    """The optimizer's learning rate throughout, after the warm-up if there is one."""

    name: Literal["constant"] = "constant"

    def _after_warmup(self, optimizer: Optimizer, total_steps: int, warm: int) -> LRScheduler:
        return MultiStepLR(optimizer, milestones=[], gamma=1.0)


ScheduleConfig = Annotated[
    MultiStep | Cosine | Poly | OneCycle | Constant,
    Field(discriminator="name"),
]


def total_steps(micro_batches: Iterable[int], accumulate: int) -> int:
    """Optimizer steps of a whole run, from the micro-batches of each epoch; an epoch's last step may hold fewer."""
    return sum(math.ceil(count / accumulate) for count in micro_batches)
