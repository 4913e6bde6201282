"""How a strategy's step is computed: one weighted backward, or one backward a task into rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from .diagnostics import Diagnostics
from .gramian import full_precision
from .graph import ParameterSets, check_reach, walk
from .rows import TaskRows
from .strategy import GramianStrategy, LossStrategy, RowStrategy, Step, Strategy


def engine_for(strategy: Strategy, shared: Iterable[Tensor] | nn.Module | None) -> Engine:
    """The engine that serves a strategy."""
    sets = ParameterSets(shared)
    if isinstance(strategy, LossStrategy):
        return LossEngine(strategy, sets)
    if isinstance(strategy, (GramianStrategy, RowStrategy)):
        return RowsEngine(strategy, sets)
    raise TypeError(
        "a strategy must be a GramianStrategy, a RowStrategy or a LossStrategy, but got "
        f"{type(strategy).__name__}, a plain Strategy"
    )


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
    def backward(
        self,
        losses: Mapping[int, Tensor],
        parameters: Sequence[Tensor],
        scaler: GradScaler | None,
        step: Step,
    ) -> None:
        """Take in the losses of some tasks, by their position."""

    @abstractmethod
    def combine(self, step: Step) -> Diagnostics:
        """Finish the step: `.grad` holds the combination."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what waits."""


class LossEngine(Engine):
    """One backward of the weighted losses a call. Linear in the losses, so it fills `.grad` at once."""

    def __init__(self, strategy: LossStrategy, sets: ParameterSets) -> None:
        self._strategy, self.sets = strategy, sets
        # Task -> its weight in the last call that it took part in.
        self._weights: dict[int, Tensor] = {}

    @property
    def pending(self) -> tuple[int, ...]:
        return tuple(sorted(self._weights))

    @property
    def holds_gradients(self) -> bool:
        return False

    def clear(self) -> None:
        self._weights.clear()

    def backward(
        self,
        losses: Mapping[int, Tensor],
        parameters: Sequence[Tensor],
        scaler: GradScaler | None,
        step: Step,
    ) -> None:
        if not losses:
            return
        tasks = tuple(losses)
        scalars = [loss.reshape(()) for loss in losses.values()]
        device = scalars[0].device
        values = torch.stack([scalar.detach().to(device) for scalar in scalars])
        weights = self._strategy.weigh(values, step.of(tasks))
        terms = [(weight.to(scalar.device) * scalar).to(device) for weight, scalar in zip(weights, scalars)]
        penalty = self._strategy.penalty([task for task in tasks if task not in self._weights])
        if penalty is not None:
            terms.append(penalty.to(device))
        total = sum(terms[1:], start=terms[0])
        (total if scaler is None else scaler.scale(total)).backward()
        self._weights.update(zip(tasks, weights.detach()))

    def combine(self, step: Step) -> Diagnostics:
        names = tuple(step.names[task] for task in self.pending)
        return Diagnostics(names, torch.stack([self._weights[task] for task in self.pending]))


class RowsEngine(Engine):
    """One trunk backward a task, one Gramian, one combination."""

    def __init__(self, strategy: GramianStrategy | RowStrategy, sets: ParameterSets) -> None:
        self._strategy, self.sets = strategy, sets
        self._rows = TaskRows(sets)
        self._scale: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        # Rows are work space: a copy starts without them (the optimizer refuses to be copied while they
        # wait).
        return {"strategy": self._strategy, "sets": self.sets}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def pending(self) -> tuple[int, ...]:
        return self._rows.tasks

    @property
    def holds_gradients(self) -> bool:
        return bool(self.pending)

    def clear(self) -> None:
        self._rows.clear()
        self._scale = None

    def backward(
        self,
        losses: Mapping[int, Tensor],
        parameters: Sequence[Tensor],
        scaler: GradScaler | None,
        step: Step,
    ) -> None:
        if self.pending and losses and (scaler is None) != (self._scale is None):
            raise ValueError("calls of backward that are combined together must all have a scaler, or none")
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        for left, (task, loss) in zip(reversed(range(len(losses))), losses.items()):
            if self.sets.is_new(task):
                leaves, compiled = walk(loss)
                check_reach(step.names[task], leaves, wanted)
                if compiled:
                    self.sets.mark_compiled(task)
            if scaler is not None:
                self._scale = scaler.scale(torch.ones((), device=loss.device))
                loss = scaler.scale(loss)
            # One call gives the trunk's rows and the head's gradients. The graph is kept for the tasks to
            # come.
            gradients = torch.autograd.grad(loss, wanted, retain_graph=left > 0, allow_unused=True)
            self._rows.add(task, wanted, gradients)
            del gradients  # before the next task's are made: the peak is the rows and one task's gradients

    def combine(self, step: Step) -> Diagnostics:
        tasks = self.pending
        names = tuple(step.names[task] for task in tasks)
        if len(tasks) == 1:
            # One task alone is plain training, whatever the strategy.
            weights = torch.ones(1, dtype=torch.float64)
            self._rows.write_weighted(weights)
            return Diagnostics(names, weights)
        if not self._rows.shared:
            raise ValueError(self._nothing_shared(names))
        gramian = self._rows.gramian()
        if self._scale is not None:
            gramian = gramian / self._scale.to(gramian.device).double().square()
        return Diagnostics(names, self._apply(gramian, step.of(tasks)), gramian)

    @torch.no_grad()
    def _apply(self, gramian: Tensor, step: Step) -> Tensor | None:
        """Let the strategy combine, and write `.grad`; the weights, if it has any.

        A Gramian that is not finite makes the combined gradient NaN, which GradScaler takes as its sign to
        skip the step. Only a strategy with state is looked at on the host, so as not to let it see such a
        step.
        """
        strategy, finite = self._strategy, gramian.isfinite().all()
        skip = self._scale is not None and strategy.stateful and not finite
        with full_precision(gramian.device):
            if isinstance(strategy, GramianStrategy):
                weights = gramian.diagonal() if skip else strategy.weigh(gramian, step)
                weights = torch.where(finite, weights, torch.nan)
                self._rows.write_weighted(weights)
                return weights
            jacobian = self._rows.jacobian()
            scale = 1.0 if self._scale is None else self._scale.to(jacobian.device, jacobian.dtype)
            gradient = jacobian[0] if skip else strategy.aggregate(jacobian / scale, step) * scale
            self._rows.write_vector(torch.where(finite, gradient, torch.nan))
            return None

    def _nothing_shared(self, names: tuple[str, ...]) -> str:
        message = f"the tasks {', '.join(names)} share no parameter of this optimizer: nothing to combine. "
        if self.sets.given:
            return message + "None of the parameters in shared=… belongs to it and requires grad."
        return message + (
            "Train them with a plain optimizer; or, behind torch.compile, where a task whose head starts "
            "at zero seems to reach nothing, name the shared ones: shared=model.backbone.parameters()."
        )
