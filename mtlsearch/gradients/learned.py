"""A learned scalar for each task, which joins the wrapped optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .strategy import Strategy


class LearnedScalars(Strategy):
    """Mixin of strategies with one trained number a task.

    A parameter each, not one vector: a task that is absent from a step must have no gradient at all, or momentum would
    move its number.
    """

    needs_tasks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tasks: list[str] = []
        self._scalars: list[nn.Parameter] = []

    def initial(self) -> float:
        """The number that every task starts with."""
        return 0.0

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        if self._tasks:
            raise ValueError(
                f"this {self.name} strategy already belongs to an optimizer; build a new one with "
                f"get_strategy({self.name!r})"
            )
        self._tasks = list(tasks)
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        start = torch.full((), float(self.initial()), device=like.device, dtype=dtype)
        self._scalars = [nn.Parameter(start.clone()) for _ in tasks]

    def parameters(self) -> list[nn.Parameter]:
        return list(self._scalars)

    def scalars(self, tasks: Sequence[int]) -> Tensor:
        """(K,) the numbers of these tasks, with their graph."""
        if not self._scalars:
            raise ValueError(
                f"strategy {self.name!r} has a learned number for each task and must know them first: "
                "strategy.setup(names, like=tensor), which MultiTaskOptimizer(…, tasks=names) does"
            )
        return torch.stack([self._scalars[task] for task in tasks])

    @property
    def learned(self) -> dict[str, float]:
        """The current numbers by task name."""
        return {name: float(scalar.detach()) for name, scalar in zip(self._tasks, self._scalars)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "learned": [scalar.detach().clone() for scalar in self._scalars]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("learned", [])
        if len(saved) != len(self._scalars):
            raise ValueError(f"{len(saved)} learned numbers saved for {len(self._scalars)} tasks")
        super().load_state_dict(state)
        with torch.no_grad():
            for scalar, value in zip(self._scalars, saved):
                scalar.copy_(value)
