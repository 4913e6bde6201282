"""What a strategy is: T task gradients (or losses) in, one gradient (or weights) out.

Three kinds, by what they need to see. `GramianStrategy`: only the inner products of the task gradients.
`RowStrategy`: the gradients themselves. `LossStrategy`: only the loss values, and one backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .gramian import full_precision, gramian, weighted_rows
from .hyperparameters import hyperparameters_of

Kind = Literal["gramian", "rows", "loss"]


@dataclass(frozen=True)
class Step:
    """What a strategy may know about the step besides gradients or losses.

    index: how many combinations came before. seed: of the optimizer. names: all tasks known so far. tasks:
    the positions in `names` of the tasks that take part now, in the order of the rows given; a strategy
    that keeps state per task indexes it with these.
    """

    index: int = 0
    seed: int = 0
    names: tuple[str, ...] = ()
    tasks: tuple[int, ...] = ()

    def of(self, tasks: tuple[int, ...]) -> Step:
        """This step, with these tasks taking part."""
        return replace(self, tasks=tasks)

    def generator(self) -> torch.Generator:
        """A CPU generator keyed by (seed, index): the same on every rank and after a restart."""
        return torch.Generator().manual_seed(_mix(_mix(self.seed) ^ self.index))


def _mix(x: int) -> int:
    """The SplitMix64 finaliser: neighbouring (seed, index) pairs get unrelated generators."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) & ((1 << 63) - 1)


@dataclass(eq=False)
class Strategy(ABC):
    """Base of all strategies. Subclasses are dataclasses whose fields are their hyperparameters."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    needs_tasks: ClassVar[bool] = False
    """True where the tasks must be known at construction (a strategy with parameters of its own)."""
    stateful: ClassVar[bool] = False
    """True where combining changes the strategy: it is then not called with gradients that are not finite."""

    def __post_init__(self) -> None:
        for hyperparameter in hyperparameters_of(type(self)):
            hyperparameter.check(self.name, getattr(self, hyperparameter.name))

    @property
    def label(self) -> str:
        """What a state_dict knows the strategy by."""
        return self.name

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:  # noqa: B027 (a hook: most need none)
        """Called once with the declared task names and a model parameter whose device is to be used."""

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the strategy's own, to be trained by the wrapped optimizer."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """State beyond the hyperparameters: tensors and plain types only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise ValueError(f"strategy {self.name!r} keeps no state, but was given state for {sorted(state)}")

    @abstractmethod
    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        """Combine task gradients: jacobian (T, P), float32 or float64 -> (P,) of the same dtype.

        `step` keys the random draws of strategies that have any; without it, step 0 of seed 0.
        """


class GramianStrategy(Strategy):
    """A strategy that needs only the Gramian of the task gradients and answers with a weight a task."""

    kind: ClassVar[Kind] = "gramian"

    @abstractmethod
    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        """gramian (T, T) float64, symmetric -> weights (T,) float64 on its device; the gradient is wᵀJ.

        Called only with two tasks or more: one task alone is plain training.
        """

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        jacobian = _checked(jacobian)
        tasks = tuple(range(len(jacobian)))
        if len(jacobian) == 1:
            return jacobian[0].clone()
        weights = self.weigh(gramian(jacobian), step or Step(tasks=tasks))
        return weighted_rows(jacobian, tasks, weights)


class RowStrategy(Strategy):
    """A strategy that needs the gradients themselves."""

    kind: ClassVar[Kind] = "rows"

    @abstractmethod
    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        """jacobian (T, P), T of at least 2 -> gradient (P,)."""

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        jacobian = _checked(jacobian)
        if len(jacobian) == 1:
            return jacobian[0].clone()
        with full_precision(jacobian.device):
            return self.aggregate(jacobian, step or Step(tasks=tuple(range(len(jacobian)))))


class LossStrategy(Strategy):
    """A strategy that weighs the losses; one backward of Σ w_t·L_t + penalty follows."""

    kind: ClassVar[Kind] = "loss"

    @abstractmethod
    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        """losses (K,) detached, of `step.tasks` -> weights (K,), which may depend on `parameters()`."""

    def penalty(self, tasks: Sequence[int]) -> Tensor | None:
        """A scalar that depends on `parameters()` only, added once a step for each task that takes part."""
        return None

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        raise TypeError(
            f"strategy {self.name!r} weighs losses and has no rule for a bare Jacobian; "
            f"use it through MultiTaskOptimizer(optimizer, strategy={self.name!r}, …).backward(losses)"
        )


@dataclass(eq=False)
class FunctionStrategy(RowStrategy):
    """Adapter: any callable jacobian (T, P) -> gradient (P,), a TorchJD `Aggregator` among them."""

    name: ClassVar[str] = "function"
    stateful: ClassVar[bool] = True  # for all we know
    function: Callable[[Tensor], Tensor] = field(kw_only=True)

    @property
    def label(self) -> str:
        of = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return f"{of.__module__}.{of.__qualname__}"

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        gradient = self.function(jacobian)
        if not isinstance(gradient, Tensor) or gradient.shape != jacobian.shape[1:]:
            got = tuple(gradient.shape) if isinstance(gradient, Tensor) else type(gradient).__name__
            raise ValueError(
                f"strategy {self.label} must turn a jacobian (T, P) = {tuple(jacobian.shape)} into a "
                f"gradient (P,) = {tuple(jacobian.shape[1:])}, but gave {got}"
            )
        return gradient


def _checked(jacobian: Tensor) -> Tensor:
    if jacobian.ndim != 2 or len(jacobian) == 0:
        raise ValueError(f"jacobian must be (T, P), one row a task, but got shape {tuple(jacobian.shape)}")
    if jacobian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"jacobian must be float32 or float64, but got {jacobian.dtype}; convert it with .float()")
    return jacobian.detach()
