"""Uncertainty weighting: loss weights from learned variances (Kendall, Gal, Cipolla 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import LossStrategy, Step


@dataclass(eq=False)
class Uncertainty(LossStrategy):
    """Σ_t ½·exp(−s_t)·L_t + ½·s_t with a learned log-variance s_t = log σ_t² for each task.

    Kendall et al. 2018, equation 7 (Gaussian likelihood): L_t / 2σ_t² + log σ_t, written in s_t, which cannot
    divide by zero. The same expression serves classification losses, for which the paper has 1/σ_t² instead
    of 1/2σ_t²: that is a shift of s_t by log 2 and of the optimum by nothing else.

    The log-variances join the wrapped optimizer as a parameter group of their own, without weight decay
    (decay would pull the variances to 1). ½·s_t is added once a step for each task that takes part, however
    many micro-batches the step has; an absent task's s_t keeps `.grad` None and does not move.
    """

    name: ClassVar[str] = "uncertainty"
    needs_tasks: ClassVar[bool] = True
    initial_log_variance: float = hyperparameter(
        0.0,
        ge=-10,
        le=10,
        search={"uniform": (-1.0, 1.0)},
        description="s_t before training, the same for each task",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._names: list[str] = []
        # A scalar each, not one vector: a task that is absent from a step must have no gradient at all, or
        # momentum would move it.
        self._log_variances: list[nn.Parameter] = []

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        if self._names:
            raise ValueError(
                "this uncertainty strategy already belongs to an optimizer; build a new one with "
                "get_strategy('uncertainty')"
            )
        self._names = list(tasks)
        self._log_variances = [
            nn.Parameter(torch.full((), float(self.initial_log_variance), device=like.device)) for _ in tasks
        ]

    def parameters(self) -> list[nn.Parameter]:
        return list(self._log_variances)

    @property
    def log_variances(self) -> dict[str, float]:
        """The current s_t by task name."""
        return {name: float(s.detach()) for name, s in zip(self._names, self._log_variances)}

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return 0.5 * torch.exp(-torch.stack([self._log_variances[task] for task in step.tasks]))

    def penalty(self, tasks: Sequence[int]) -> Tensor | None:
        return 0.5 * torch.stack([self._log_variances[task] for task in tasks]).sum() if tasks else None

    def state_dict(self) -> dict[str, Any]:
        return {"log_variances": [s.detach().clone() for s in self._log_variances]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = state.get("log_variances", [])
        if len(saved) != len(self._log_variances):
            raise ValueError(f"{len(saved)} log-variances saved for {len(self._log_variances)} tasks")
        with torch.no_grad():
            for s, value in zip(self._log_variances, saved):
                s.copy_(value)


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
