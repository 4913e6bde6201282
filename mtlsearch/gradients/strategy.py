"""What a strategy is: T task gradients (or losses) in, one gradient (or weights) out.

Three kinds, by what they need to see. `GramianStrategy`: only the inner products of the task gradients.
`RowStrategy`: the gradients themselves. `LossStrategy`: only the loss values, and one backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .gramian import full_precision, gramian, weighted_rows
from .hyperparameters import hyperparameters_of
from .solvers import Array

Kind = Literal["gramian", "rows", "loss"]


@dataclass(frozen=True)
class Step:
    """What a strategy may know about the step besides gradients or losses.

    index: how many combinations came before. seed: of the optimizer. names: all tasks known so far. tasks: the
    positions in `names` of the tasks that take part now, in the order of the rows given; a strategy that keeps state
    per task indexes it with these. losses: (K,) detached, unscaled losses of `tasks`, summed over the calls of the
    step. precision: the relative accuracy of the Gramian's entries, which is that of the gradients it was computed
    from.
    """

    index: int = 0
    seed: int = 0
    names: tuple[str, ...] = ()
    tasks: tuple[int, ...] = ()
    losses: Tensor | None = None
    precision: float = torch.finfo(torch.float64).eps

    def of(self, tasks: tuple[int, ...], losses: Tensor | None = None, dtype: torch.dtype | None = None) -> Step:
        """This step, with these tasks taking part, their losses, and gradients of this dtype."""
        precision = self.precision if dtype is None else torch.finfo(dtype).eps
        return replace(self, tasks=tasks, losses=losses, precision=precision)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator keyed by (seed, index): the same on every rank and after a restart.

        On the CPU the draws are the same for every machine; another kind of device has a stream of its own.
        """
        return torch.Generator(device).manual_seed(_mix(_mix(self.seed) ^ self.index))

    def known_losses(self, strategy: str) -> Tensor:
        """The losses, or an error for a caller of `combine` who did not give any."""
        if self.losses is None:
            raise ValueError(
                f"strategy {strategy!r} needs the losses beside the Jacobian: combine(jacobian, Step(losses=losses))"
            )
        return self.losses


def _mix(x: int) -> int:
    """The SplitMix64 finaliser: neighbouring (seed, index) pairs get unrelated generators."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) & ((1 << 63) - 1)


@dataclass(eq=False)
class Strategy(ABC):
    """Base of all strategies. Subclasses are dataclasses whose fields are their hyperparameters and state.

    State is what combining changes: `targets: Tensor | None = field(default=None, init=False, repr=False)`.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    needs_tasks: ClassVar[bool] = False
    """True where the tasks must be known at construction (a strategy with parameters of its own)."""

    def __post_init__(self) -> None:
        for hyperparameter in hyperparameters_of(type(self)):
            hyperparameter.check(self.name, getattr(self, hyperparameter.name))

    @property
    def state_names(self) -> tuple[str, ...]:
        """The fields that hold state: those that are no argument of the constructor."""
        return tuple(field.name for field in fields(self) if not field.init)

    @property
    def stateful(self) -> bool:
        """Whether combining changes the strategy, so that it must not see gradients that are not finite."""
        return bool(self.state_names)

    @property
    def label(self) -> str:
        """What a state_dict knows the strategy by."""
        return self.name

    def setup(self, tasks: Sequence[str], like: Tensor) -> None:  # noqa: B027 (a hook: most need none)
        """Called once with the declared task names and a model parameter whose device is to be used."""

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the strategy's own, to be trained by the wrapped optimizer."""
        return []

    def own_gradients(self, step: Step) -> list[Tensor | None]:
        """Gradients of `parameters()`, asked for once a step after the combination by the rows engine.

        A loss strategy needs none: autograd reaches its parameters through the weights.
        """
        return []

    def specific_weights(self, step: Step) -> Tensor | None:
        """(K,) what gradients of task-specific parameters are multiplied with; None for 1.

        For strategies that see gradients and still weigh losses: those weights reach all parameters. Asked for once a
        step, after the combination.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """State beyond the hyperparameters: tensors and plain types only."""
        state = {name: getattr(self, name) for name in self.state_names}
        return {name: value.clone() for name, value in state.items() if value is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if unknown := sorted(set(state) - set(self.state_names)):
            kept = f"state for {', '.join(self.state_names)}" if self.state_names else "no state"
            raise ValueError(f"strategy {self.name!r} keeps {kept}, but was given state for {unknown}")
        for name in self.state_names:
            value = state.get(name)
            setattr(self, name, None if value is None else value.clone())

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
        jacobian = checked(jacobian)
        tasks = tuple(range(len(jacobian)))
        if len(jacobian) == 1:
            return jacobian[0].clone()
        weights = self.weigh(gramian(jacobian), completed(step, jacobian))
        return weighted_rows(jacobian, tasks, weights)


class SolvedStrategy(GramianStrategy):
    """A Gramian strategy whose weights come from a solver on the host.

    On a GPU a step waits for the device once, to read the T² numbers of the Gramian.
    """

    @abstractmethod
    def solve(self, gramian: Array, step: Step) -> Array:
        """gramian (T, T) float64, finite -> weights (T,)."""

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        on_host = gramian.cpu()
        if not bool(on_host.isfinite().all()):
            return torch.full_like(gramian.diagonal(), torch.nan)
        return torch.from_numpy(self.solve(on_host.numpy(), step)).to(gramian.device)


class RowStrategy(Strategy):
    """A strategy that needs the gradients themselves."""

    kind: ClassVar[Kind] = "rows"
    samples: ClassVar[int] = 1
    """How many independent samples of each task's gradient a step needs: so many calls of
    `backward(losses, combine=False)`, and then `combine()`."""

    @abstractmethod
    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        """jacobian (T, P), (samples, T, P) for more samples than one; T of at least 2 -> gradient (P,)."""

    def combine(self, jacobian: Tensor, step: Step | None = None) -> Tensor:
        jacobian = checked(jacobian, self.samples)
        if jacobian.shape[-2] == 1:
            return jacobian.reshape(self.samples, -1).mean(0)
        with full_precision(jacobian.device):
            return self.aggregate(jacobian, completed(step, jacobian))


class LossStrategy(Strategy):
    """A strategy that weighs the losses; one backward of Σ w_t·L_t + penalty follows."""

    kind: ClassVar[Kind] = "loss"
    needs_all_losses: ClassVar[bool] = False
    """True where a weight depends on the values of the losses or on which tasks take part. `weigh` is then
    called once a step, with the losses of all calls summed and two tasks or more; micro-batches and tasks
    with batches of their own wait as one gradient a task."""

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


class Scalarization(LossStrategy):
    """A loss strategy given by one function of all losses: the weights are its derivatives."""

    needs_all_losses: ClassVar[bool] = True

    @abstractmethod
    def scalarize(self, losses: Tensor, step: Step) -> Tensor:
        """losses (K,) of `step.tasks` -> the scalar to minimise."""

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        with torch.enable_grad():
            losses = losses.detach().requires_grad_()
            return torch.autograd.grad(self.scalarize(losses, step), losses)[0]


@dataclass(eq=False)
class FunctionStrategy(RowStrategy):
    """Adapter: any callable jacobian (T, P) -> gradient (P,), a TorchJD `Aggregator` among them."""

    name: ClassVar[str] = "function"
    function: Callable[[Tensor], Tensor] = field(kw_only=True)

    @property
    def stateful(self) -> bool:
        return True  # for all we know

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


def positive(strategy: str, losses: Tensor) -> Tensor:
    """The losses, if all are above 0. ValueError otherwise; on a GPU, where a look would wait, NaN."""
    if losses.device.type == "cpu" and bool((losses <= 0).any()):
        raise ValueError(
            f"strategy {strategy!r} takes logarithms, so losses must be above their lower bound (0 where "
            f"none is given), but got differences {losses.tolist()}"
        )
    return torch.where(losses > 0, losses, torch.nan)


def grown(state: Tensor | None, shape: Sequence[int], like: Tensor, fill: float = 0.0) -> Tensor:
    """State of a strategy at the start of a step: `state` on the device of `like`, padded to `shape`.

    Tasks become known one by one, so what is kept a task can be too short.
    """
    whole = like.new_full(tuple(shape), fill)
    if state is not None:
        whole[tuple(slice(size) for size in state.shape)] = state.to(like)
    return whole


def grown_rows(state: Tensor | None, step: Step, jacobian: Tensor) -> Tensor:
    """`grown` for a row a known task, all zero when the columns have changed: they have another meaning."""
    if state is not None and state.shape[1] != jacobian.shape[1]:
        state = None
    return grown(state, (max(len(step.names), max(step.tasks) + 1), jacobian.shape[1]), jacobian)


def completed(step: Step | None, jacobian: Tensor) -> Step:
    """The step of a bare `combine`: by default all tasks, and the precision of the Jacobian's dtype."""
    step = step or Step()
    return step.of(step.tasks or tuple(range(jacobian.shape[-2])), step.losses, jacobian.dtype)


def checked(jacobian: Tensor, samples: int = 1) -> Tensor:
    if samples > 1 and (jacobian.ndim != 3 or len(jacobian) != samples or jacobian.shape[1] == 0):
        raise ValueError(
            f"jacobian must be ({samples}, T, P), one for each of {samples} independent samples, but got "
            f"shape {tuple(jacobian.shape)}"
        )
    if samples == 1 and (jacobian.ndim != 2 or len(jacobian) == 0):
        raise ValueError(f"jacobian must be (T, P), one row a task, but got shape {tuple(jacobian.shape)}")
    if jacobian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"jacobian must be float32 or float64, but got {jacobian.dtype}; convert it with .float()")
    return jacobian.detach()
