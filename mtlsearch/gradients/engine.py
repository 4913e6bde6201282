"""How a strategy's step is computed: one weighted backward, or one backward a task into rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from .diagnostics import Diagnostics
from .gramian import full_precision
from .graph import ParameterSets, check_reach, walk
from .rows import TaskRows, hold, write
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
        last: bool,
    ) -> None:
        """Take in the losses of some tasks, by their position; `last` if `combine` follows at once."""

    @abstractmethod
    def combine(self, step: Step) -> Diagnostics:
        """Finish the step: `.grad` holds the combination."""

    @abstractmethod
    def clear(self) -> None:
        """Forget what waits."""


class LossEngine(Engine):
    """One backward of the weighted losses a call. Linear in the losses, so it fills `.grad` at once.

    Unless the strategy must see all losses to weigh any of them, and they come in several calls: then one gradient a
    task waits for the weights.
    """

    def __init__(self, strategy: LossStrategy, sets: ParameterSets) -> None:
        self._strategy, self.sets = strategy, sets
        # Task -> its weight in the last call that it took part in.
        self._weights: dict[int, Tensor] = {}
        # Task -> what waits for its weight: the loss so far and the gradient of each parameter.
        self._losses: dict[int, Tensor] = {}
        self._held: dict[int, dict[Tensor, Tensor]] = {}
        self._scaled = False

    @property
    def pending(self) -> tuple[int, ...]:
        return tuple(sorted(self._held or self._weights))

    @property
    def holds_gradients(self) -> bool:
        return bool(self._held)

    def clear(self) -> None:
        self._weights.clear()
        self._losses.clear()
        self._held.clear()

    def backward(
        self,
        losses: Mapping[int, Tensor],
        parameters: Sequence[Tensor],
        scaler: GradScaler | None,
        step: Step,
        last: bool,
    ) -> None:
        if not losses:
            return
        self._scaled = scaler is not None
        if self._strategy.needs_all_losses and (self._held or not last):
            self._hold(losses, parameters, scaler)
            return
        tasks = tuple(losses)
        scalars = [loss.reshape(()) for loss in losses.values()]
        device = scalars[0].device
        values = torch.stack([scalar.detach().to(device) for scalar in scalars])
        weights = self._weigh(values, step.of(tasks, values))
        terms = [(weight.to(scalar.device) * scalar).to(device) for weight, scalar in zip(weights, scalars)]
        penalty = self._strategy.penalty([task for task in tasks if task not in self._weights])
        if penalty is not None:
            terms.append(penalty.to(device))
        total = sum(terms[1:], start=terms[0])
        (total if scaler is None else scaler.scale(total)).backward()
        self._weights.update(zip(tasks, weights.detach()))

    def combine(self, step: Step) -> Diagnostics:
        if self._held:
            tasks = self.pending
            losses = torch.stack([self._losses[task] for task in tasks])
            weights = self._weigh(losses, step.of(tasks, losses)).detach()
            for task, weight in zip(tasks, weights):
                write({p: g * weight.to(g.device, g.dtype) for p, g in self._held[task].items()})
            self._weights = dict(zip(tasks, weights))
        names = tuple(step.names[task] for task in self.pending)
        return Diagnostics(names, torch.stack([self._weights[task] for task in self.pending]))

    def _weigh(self, losses: Tensor, step: Step) -> Tensor:
        if self._strategy.needs_all_losses and len(losses) == 1:
            return torch.ones_like(losses)  # one task alone is plain training
        if self._scaled and self._strategy.stateful and not losses.isfinite().all():
            return torch.full_like(losses, torch.nan)  # the scaler's sign to skip the step
        return self._strategy.weigh(losses, step)

    def _hold(self, losses: Mapping[int, Tensor], parameters: Sequence[Tensor], scaler: GradScaler | None) -> None:
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        for left, (task, loss) in zip(reversed(range(len(losses))), losses.items()):
            value = loss.detach().reshape(())
            self._losses[task] = self._losses[task] + value if task in self._losses else value
            scaled = loss if scaler is None else scaler.scale(loss)
            gradients = torch.autograd.grad(scaled, wanted, retain_graph=left > 0, allow_unused=True)
            found = {p: g for p, g in zip(wanted, gradients) if g is not None}
            hold(self._held.setdefault(task, {}), found)


class RowsEngine(Engine):
    """One trunk backward a task, one Gramian, one combination."""

    def __init__(self, strategy: GramianStrategy | RowStrategy, sets: ParameterSets) -> None:
        self._strategy, self.sets = strategy, sets
        self._samples = [TaskRows(sets) for _ in range(getattr(strategy, "samples", 1))]
        # Task -> its loss so far in this step, and in how many calls.
        self._losses: dict[int, Tensor] = {}
        self._calls: Counter[int] = Counter()
        self._parameters: list[Tensor] = []
        self._scale: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        # Rows are work space: a copy starts without them (the optimizer refuses to be copied while they
        # wait).
        return {"strategy": self._strategy, "sets": self.sets}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def pending(self) -> tuple[int, ...]:
        return self._samples[0].tasks

    @property
    def holds_gradients(self) -> bool:
        return bool(self.pending)

    def clear(self) -> None:
        for rows in self._samples:
            rows.clear()
        self._losses.clear()
        self._calls.clear()
        self._scale = None

    def backward(
        self,
        losses: Mapping[int, Tensor],
        parameters: Sequence[Tensor],
        scaler: GradScaler | None,
        step: Step,
        last: bool,
    ) -> None:
        if self.pending and losses and (scaler is None) != (self._scale is None):
            raise ValueError("calls of backward that are combined together must all have a scaler, or none")
        wanted = self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        for left, (task, loss) in zip(reversed(range(len(losses))), losses.items()):
            if self.sets.is_new(task):
                leaves, compiled = walk(loss)
                check_reach(step.names[task], leaves, wanted)
                if compiled:
                    self.sets.mark_compiled(task)
            given = loss
            if scaler is not None:
                self._scale = scaler.scale(torch.ones((), device=loss.device))
                loss = scaler.scale(loss)
            # One call gives the trunk's rows and the head's gradients. The graph is kept for the tasks to
            # come.
            gradients = torch.autograd.grad(loss, wanted, retain_graph=left > 0, allow_unused=True)
            self._rows_of(task, step).add(task, wanted, gradients)
            del gradients  # before the next task's are made: the peak is the rows and one task's gradients
            self._calls[task] += 1
            value = given.detach().reshape(())
            self._losses[task] = self._losses[task] + value if task in self._losses else value

    def combine(self, step: Step) -> Diagnostics:
        tasks = self.pending
        names = tuple(step.names[task] for task in tasks)
        self._check_samples(step)
        first, *others = self._samples
        if len(tasks) == 1:
            # One task alone is plain training, whatever the strategy.
            weights = torch.ones(1, dtype=torch.float64)
            for rows in self._samples:
                rows.write_weighted(weights / len(self._samples))
                rows.write_specific(None if not others else weights / len(self._samples))
            return Diagnostics(names, weights)
        for rows in others:  # a later sample may have made a parameter shared
            first.arrange(self._parameters)
            rows.arrange(self._parameters)
        if not first.shared:
            raise ValueError(self._nothing_shared(names))
        gramian = first.gramian()
        if self._scale is not None:
            gramian = gramian / self._scale.to(gramian.device).double().square()
        losses = torch.stack([self._losses[task].to(gramian.device) for task in tasks])
        return Diagnostics(names, self._apply(gramian, step.of(tasks, losses, first.dtype)), gramian)

    @torch.no_grad()
    def _apply(self, gramian: Tensor, step: Step) -> Tensor | None:
        """Let the strategy combine, and write `.grad`; the weights, if it has any.

        A Gramian that is not finite makes the combined gradient NaN, which GradScaler takes as its sign to skip the
        step. Only a strategy with state is looked at on the host, so as not to let it see such a step.
        """
        strategy, finite = self._strategy, gramian.isfinite().all()
        weights = None
        with full_precision(gramian.device):
            if isinstance(strategy, RowStrategy):
                samples = [rows.jacobian() for rows in self._samples]
                jacobian = samples[0] if len(samples) == 1 else torch.stack(samples)
                if len(samples) > 1:  # the Gramian is that of the first one
                    finite = finite & jacobian.isfinite().all()
            skip = self._scale is not None and strategy.stateful and not finite
            if isinstance(strategy, GramianStrategy):
                weights = gramian.diagonal() if skip else strategy.weigh(gramian, step)
                weights = torch.where(finite, weights, torch.nan)
                self._samples[0].write_weighted(weights)
            else:
                scale = 1.0 if self._scale is None else self._scale.to(jacobian.device, jacobian.dtype)
                gradient = samples[0][0] if skip else strategy.aggregate(jacobian / scale, step) * scale
                self._samples[0].write_vector(torch.where(finite, gradient, torch.nan))
            specific = None if skip else strategy.specific_weights(step)
            if len(self._samples) > 1:
                specific = torch.ones(len(step.tasks)) if specific is None else specific
                specific = specific / len(self._samples)
            for rows in self._samples:
                rows.write_specific(specific)
            if not skip:
                self._write_own(strategy.own_gradients(step))
        return weights

    def _write_own(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._strategy.parameters(), gradients):
            if gradient is not None:
                scale = 1.0 if self._scale is None else self._scale.to(parameter.device)
                write({parameter: gradient.to(parameter) * scale})

    def _rows_of(self, task: int, step: Step) -> TaskRows:
        """The rows for the next gradient of a task: those of its next sample, if there are several."""
        if len(self._samples) == 1:
            return self._samples[0]
        if self._calls[task] == len(self._samples):
            raise ValueError(
                f"task {step.names[task]!r} has been given {len(self._samples)} times already, and that is "
                f"how many independent samples a step of {self._strategy.name!r} takes: call combine()"
            )
        return self._samples[self._calls[task]]

    def _check_samples(self, step: Step) -> None:
        wanted = len(self._samples)
        for task in self.pending:
            if wanted > 1 and self._calls[task] != wanted:
                raise ValueError(
                    f"strategy {self._strategy.name!r} needs {wanted} independent samples of each task's "
                    f"gradient a step, but task {step.names[task]!r} has {self._calls[task]}: call "
                    f"backward(losses, combine=False) with the losses of {wanted} batches, then combine()"
                )

    def _nothing_shared(self, names: tuple[str, ...]) -> str:
        message = f"the tasks {', '.join(names)} share no parameter of this optimizer: nothing to combine. "
        if self.sets.given:
            return message + "None of the parameters in shared=… belongs to it and requires grad."
        return message + (
            "Train them with a plain optimizer; or, behind torch.compile, where a task whose head starts "
            "at zero seems to reach nothing, name the shared ones: shared=model.backbone.parameters()."
        )
