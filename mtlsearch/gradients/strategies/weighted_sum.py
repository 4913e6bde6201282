"""The weighted sum of the losses with fixed weights: the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..gramian import weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import StrategyInfo, unknown_name
from ..strategy import LossStrategy, Step, _checked


@dataclass(eq=False)
class WeightedSum(LossStrategy):
    """Σ_t weights_t·L_t, one backward. Without weights, the plain sum.

    weights: one number a task, in the order of the tasks, or a mapping name -> number. They multiply the
    losses and so reach task-specific gradients too.
    """

    name: ClassVar[str] = "weighted_sum"
    weights: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, ge=0, description="static weight of each task's loss; None is 1 for each"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        if isinstance(self.weights, Mapping):
            for name in self.weights:
                if name not in tasks:
                    raise ValueError(unknown_name("task in weights:", name, tasks))
        elif self.weights is not None and len(self.weights) != len(tasks):
            raise ValueError(
                f"weights must hold one number for each of the {len(tasks)} tasks ({', '.join(tasks)}), "
                f"but got {self.weights!r}"
            )

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return losses.new_tensor([self._weight(task, step) for task in step.tasks])

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        jacobian = _checked(jacobian)
        tasks = tuple(range(len(jacobian)))
        weights = [self._weight(task, step or Step(tasks=tasks)) for task in tasks]
        return weighted_rows(jacobian, tasks, torch.tensor(weights, dtype=torch.float64))

    def _weight(self, task: int, step: Step) -> float:
        if self.weights is None:
            return 1.0
        if isinstance(self.weights, Mapping):
            if not step.names:
                raise ValueError("weights are given by name, but the tasks have none here; give a sequence of numbers")
            if step.names[task] not in self.weights:
                raise ValueError(
                    f"weights must name every task, but got {dict(self.weights)!r} without {step.names[task]!r}"
                )
            return float(self.weights[step.names[task]])
        if task >= len(self.weights):
            raise ValueError(f"weights must hold one number for each task, but got {self.weights!r} for task {task}")
        return float(self.weights[task])


INFO = StrategyInfo(strategy=WeightedSum, scale_equivariant=True, permutation_equivariant=False)
