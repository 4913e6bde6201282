"""What an engine is: it takes in tasks' losses, call by call, and then puts one gradient into `.grad`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from ..diagnostics import Diagnostics
from ..gramian import full_precision
from ..graph import ParameterSets
from ..strategy import GramianStrategy, Step


@dataclass(frozen=True)
class Call:
    """One call of `backward`.

    losses: of the tasks that take part, by their position. parameters: all those of the wrapped optimizer but the
    strategy's own. last: whether `combine` follows at once. values: the losses as numbers, over all ranks. features:
    as given to `backward`.
    """

    losses: Mapping[int, Tensor]
    parameters: Sequence[Tensor]
    scaler: GradScaler | None
    last: bool
    values: Mapping[int, Tensor]
    features: Sequence[Tensor] = ()

    @property
    def wanted(self) -> list[Tensor]:
        """The parameters that are trained."""
        return [parameter for parameter in self.parameters if parameter.requires_grad]

    @property
    def scaled(self) -> dict[int, Tensor]:
        """The losses, scaled by the scaler if there is one."""
        if self.scaler is None:
            return dict(self.losses)
        return {task: self.scaler.scale(loss) for task, loss in self.losses.items()}


class Engine(ABC):
    """Accumulates tasks' losses over calls of `backward`, and then puts one gradient into `.grad`."""

    sets: ParameterSets

    @property
    @abstractmethod
    def pending(self) -> tuple[int, ...]:
        """The tasks that wait for `combine`, in order."""

    @property
    @abstractmethod
    def holds_gradients(self) -> bool:
        """Whether gradients wait that are not in `.grad` yet, so that a step now would miss them."""

    @abstractmethod
    def backward(self, call: Call, step: Step) -> None:
        """Take in the losses of some tasks."""

    @abstractmethod
    def combine(self, step: Step) -> Diagnostics:
        """Finish the step: `.grad` holds the combination."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what waits."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: tensors and plain types only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (most engines keep nothing)
        """Restore what `state_dict` gave."""


@torch.no_grad()
def weigh_finite(strategy: GramianStrategy, gramian: Tensor, step: Step, scaled: bool) -> Tensor:
    """The strategy's weights; NaN for a Gramian that is not finite, the sign for GradScaler to skip the step.

    Only a strategy with state is looked at on the host, so as not to let it see such a step.
    """
    finite = gramian.isfinite().all()
    with full_precision(gramian.device):
        skip = scaled and strategy.stateful and not finite
        weights = gramian.diagonal() if skip else strategy.weigh(gramian, step)
    return torch.where(finite, weights, torch.nan)
