"""The weighted sum of the losses with fixed weights: the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..gramian import weighted_rows
from ..hyperparameters import hyperparameter
from ..per_task import check_per_task, per_task
from ..registry import StrategyInfo
from ..strategy import LossStrategy, Step, checked, completed


@dataclass(eq=False)
class WeightedSum(LossStrategy):
    """Σ_t weights_t·L_t, one backward. Without weights, the plain sum.

    weights: one number a task, in the order of the tasks, or a mapping name -> number. They multiply the losses and so
    reach task-specific gradients too.
    """

    name: ClassVar[str] = "weighted_sum"
    weights: Sequence[float] | Mapping[str, float] | None = hyperparameter(
        None, ge=0, description="static weight of each task's loss; None is 1 for each"
    )

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:
        check_per_task("weights", self.weights, tasks)

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return losses.new_tensor(per_task("weights", self.weights, step, 1.0))

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        jacobian = checked(jacobian)
        step = completed(step, jacobian)
        weights = torch.tensor(per_task("weights", self.weights, step, 1.0), dtype=torch.float64)
        return weighted_rows(jacobian, range(len(jacobian)), weights)


INFO = StrategyInfo(strategy=WeightedSum, scale_equivariant=True, permutation_equivariant=False)
