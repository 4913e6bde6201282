"""One trunk backward a task: gradients in rows, or kept as the factors of a product where that costs less."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..diagnostics import Diagnostics
from ..gramian import full_precision, sum_on_first_device
from ..gramian import gramian as full_gramian
from ..graph import Gradient, ParameterSets, check_reach
from ..linear import LinearUses, forming_pays, ghost_pays
from ..ranks import Ranks
from ..strategy import GramianStrategy, RowStrategy, Step
from ..tape import Node, Tape, differentiate, input_of
from ..task_rows import TaskRows, write
from .base import Call, Engine, weigh_finite

Mode = Literal["auto", "rows", "ghost"]


def is_ghost(mode: Mode, weight: Tensor, nodes: Sequence[Node], tasks: int) -> bool:
    """Whether a linear weight's gradients are left unformed, where that is possible."""
    return mode == "ghost" or (mode == "auto" and ghost_pays(nodes, weight, tasks))


def _see(seen: dict[int, Tensor | None], index: int, gradients: tuple[Tensor | None, ...]) -> None:
    seen[index] = gradients[0]


class RowsEngine(Engine):
    """One trunk backward a task, one Gramian, one combination.

    mode: what becomes of linear weights. "rows": their gradients are formed, in their rows. "ghost": they never are;
    Gramian and combination come from the layers' inputs and output gradients. "auto": whichever counts fewer
    operations, weight by weight. Strategies that need the rows themselves, several ranks, accumulation and compiled
    modules always have rows.
    """

    def __init__(
        self, strategy: GramianStrategy | RowStrategy, sets: ParameterSets, ranks: Ranks | None, mode: Mode
    ) -> None:
        self._strategy, self.sets, self._ranks, self._mode = strategy, sets, ranks, mode
        self._samples = [TaskRows(sets, ranks) for _ in range(getattr(strategy, "samples", 1))]
        # Weights whose gradients are not formed in this step.
        self._ghosts: list[LinearUses] = []
        self._no_linear = False
        # Weights whose layers' inputs are packed by saved-tensor hooks.
        self._packed: set[Tensor] = set()
        # Task -> its loss so far in this step, and in how many calls.
        self._losses: dict[int, Tensor] = {}
        self._calls: Counter[int] = Counter()
        self._parameters: list[Tensor] = []
        self._scale: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        # Rows are work space: a copy starts without them (the optimizer refuses to be copied while they wait).
        return {"strategy": self._strategy, "sets": self.sets, "ranks": self._ranks, "mode": self._mode}

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
        self._ghosts.clear()
        self._losses.clear()
        self._calls.clear()
        self._scale = None

    def backward(self, call: Call, step: Step) -> None:
        if self.pending and call.values and (call.scaler is None) != (self._scale is None):
            raise ValueError("calls of backward that are combined together must all have a scaler, or none")
        wanted = self._parameters = call.wanted
        new = [task for task in call.losses if self.sets.is_new(task)]
        tape = self._tape(call, step, new)
        foreseen = self.sets.shared(wanted) if tape is None else self.sets.foreseen(tape, wanted)
        linear = {} if tape is None else self._linear_uses(tape, call, foreseen)
        formed = [uses for uses in linear.values() if uses not in self._ghosts]
        plain = [parameter for parameter in wanted if parameter not in linear]
        ghosts = {uses.weight for uses in self._ghosts}
        in_rows = [parameter for parameter in wanted if parameter not in ghosts]
        if call.values:
            shared = [parameter for parameter in foreseen if parameter not in ghosts]
            self._arrange(in_rows, shared, tasks=max(call.values) + 1)
        if call.scaler is not None and call.values:
            device = next(iter(call.losses.values())).device if call.losses else wanted[0].device
            self._scale = call.scaler.scale(torch.ones((), device=device))
        for left, (task, loss) in zip(reversed(range(len(call.losses))), call.scaled.items()):
            # One pass gives the trunk's rows and the head's gradients. The graph is kept for the tasks to come.
            found = self._pass(loss, plain, [*formed, *self._ghosts], retain=left > 0)
            gradients: dict[Tensor, Gradient] = {parameter: next(found) for parameter in plain}
            for uses in formed:
                gradients[uses.weight] = uses.product([next(found) for _ in uses.nodes])
            for uses in self._ghosts:
                gradients[uses.weight] = uses.keep(task, [next(found) for _ in uses.nodes])
            self.sets.observe(task, wanted, [gradients[parameter] for parameter in wanted])
            self._rows_of(task, step).add(task, in_rows, [gradients[parameter] for parameter in in_rows])
            del found, gradients  # before the next task's are made: the peak is the rows and one task's gradients
        if new:  # what the passes showed overrules what the graph promised
            self._give_up_ghosts(list(call.losses))
        for task, value in call.values.items():
            if task not in call.losses:  # on another rank
                self._rows_of(task, step).add(task, wanted, [None] * len(wanted))
            self._calls[task] += 1
            self._losses[task] = self._losses[task] + value if task in self._losses else value
        if call.values:
            self._arrange(in_rows, self.sets.shared(in_rows))

    def _arrange(self, parameters: list[Tensor], shared: list[Tensor], tasks: int = 0) -> None:
        for rows in self._samples:
            rows.arrange(parameters, shared, tasks)

    def _give_up_ghosts(self, tasks: list[int]) -> None:
        """Form the gradients of weights that turn out to be one task's own."""
        shared = set(self.sets.shared(self._parameters))
        for uses in [uses for uses in self._ghosts if uses.weight not in shared]:
            self._ghosts.remove(uses)
            for task, gradient in uses.formed(tasks).items():
                self._samples[0].hold(task, uses.weight, gradient)

    def _tape(self, call: Call, step: Step, new: list[int]) -> Tape | None:
        """The walked graph, when something new is to be learned from it or linear layers profit from it."""
        # Where there is no linear layer, it is worth a look only now and then.
        look = not self._no_linear or step.index & (step.index - 1) == 0
        sharded = self._ranks is not None and self._ranks.sharded  # its graph ends in tensors that FSDP makes
        if sharded or (not new and (len(call.losses) < 2 or not look)):
            return None
        tape = Tape(call.losses)
        for task in new:
            check_reach(step.names[task], tape.leaves_of(task), call.wanted)
            if task in tape.compiled:
                self.sets.mark_compiled(task)
        return tape

    def _linear_uses(self, tape: Tape, call: Call, shared: list[Tensor]) -> dict[Tensor, LinearUses]:
        """The shared weights that are products in this call; those in `self._ghosts` are not formed."""
        if tape.compiled or len(call.losses) < 2 or self._ranks is not None:
            return {}
        found = tape.uses_of([weight for weight in shared if weight not in self._packed])
        self._no_linear = not found
        alone = call.last and not self.pending and isinstance(self._strategy, GramianStrategy)
        tasks = len(call.losses)
        uses: dict[Tensor, LinearUses] = {}
        for weight, nodes in found.items():
            ghost = alone and is_ghost(self._mode, weight, nodes, tasks)
            if not ghost and not forming_pays(nodes, weight):
                continue
            inputs = [kept for node in nodes if (kept := input_of(node)) is not None]
            if len(inputs) < len(nodes):
                self._packed.add(weight)  # reading may have meant computing it again: once is enough
                continue
            uses[weight] = LinearUses(weight, nodes, inputs)
            if ghost:
                self._ghosts.append(uses[weight])
        return uses

    def _pass(self, loss: Tensor, plain: list[Tensor], uses: list[LinearUses], retain: bool) -> Iterator[Tensor | None]:
        """One backward: the gradients of `plain`, and then of the outputs of each use of linear weights.

        The latter as the graph goes on with them, behind all hooks; which is seen on the way, unless nothing below
        makes autograd go on.
        """
        if self._ranks is not None:
            return iter(self._ranks.differentiate(loss, plain, retain=retain))
        nodes = [node for use in uses for node in use.nodes]
        seen: dict[int, Tensor | None] = {}
        handles = [node.register_prehook(partial(_see, seen, index)) for index, node in enumerate(nodes)]
        try:
            found = differentiate(loss, [*plain, *(edge for use in uses for edge in use.edges)], retain=retain)
        finally:
            for handle in handles:
                handle.remove()
        outputs = [seen.get(index, gradient) for index, gradient in enumerate(found[len(plain) :])]
        return iter([*found[: len(plain)], *outputs])

    def combine(self, step: Step) -> Diagnostics:
        tasks = self.pending
        names = tuple(step.names[task] for task in tasks)
        self._check_samples(step)
        first, *others = self._samples
        for rows in self._samples:
            rows.agree(self._parameters)
        if len(tasks) == 1:
            # One task alone is plain training, whatever the strategy.
            weights = torch.ones(1, dtype=torch.float64)
            for rows in self._samples:
                rows.write_weighted(weights / len(self._samples))
                rows.write_specific(None if not others else weights / len(self._samples))
            return Diagnostics(names, weights)
        if others:  # a later sample may have made a parameter shared
            self._arrange(self._parameters, self.sets.shared(self._parameters))
        if not first.shared and not self._ghosts:
            raise ValueError(self._nothing_shared(names))
        if isinstance(self._strategy, RowStrategy):
            samples = [rows.jacobian() for rows in self._samples]
            gramian = full_gramian(samples[0])
        else:
            parts = [first.gramian(), *(full_gramian(rows) for rows in self._ghost_rows(tasks))]
            gramian = sum_on_first_device(part for part in parts if part is not None)
        if self._scale is not None:
            gramian = gramian / self._scale.to(gramian.device).double().square()
        losses = torch.stack([self._losses[task].to(gramian.device) for task in tasks])
        step = step.of(tasks, losses, self._dtype())
        if isinstance(self._strategy, RowStrategy):
            self._aggregate(self._strategy, gramian, samples, step)
            return Diagnostics(names, None, gramian)
        weights = weigh_finite(self._strategy, gramian, step, self._scale is not None)
        first.write_weighted(weights)
        write({uses.weight: uses.combined(tasks, weights) for uses in self._ghosts}, own=True)
        self._finish(step, skip=self._skip(gramian.isfinite().all()))
        return Diagnostics(names, weights, gramian)

    def _ghost_rows(self, tasks: Sequence[int]) -> Iterator[Tensor]:
        """`LinearUses.rows` of all ghosts, a device and dtype at a time."""
        together: defaultdict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for uses in self._ghosts:
            rows = uses.rows(tasks)
            together[rows.device, rows.dtype].append(rows)
        return (torch.cat(rows, dim=1) for rows in together.values())

    def _dtype(self) -> torch.dtype:
        single = any(uses.weight.dtype == torch.float32 for uses in self._ghosts)
        return torch.float32 if single else self._samples[0].dtype

    def _skip(self, finite: Tensor) -> bool:
        """Whether a strategy with state must be spared these gradients, whose step the GradScaler will skip."""
        return self._scale is not None and self._strategy.stateful and not finite

    @torch.no_grad()
    def _aggregate(self, strategy: RowStrategy, gramian: Tensor, samples: list[Tensor], step: Step) -> None:
        """Let the strategy combine the rows themselves, and write `.grad`."""
        jacobian = samples[0] if len(samples) == 1 else torch.stack(samples)
        finite = gramian.isfinite().all()
        if len(samples) > 1:  # the Gramian is that of the first one
            finite = finite & jacobian.isfinite().all()
        skip = self._skip(finite)
        scale = 1.0 if self._scale is None else self._scale.to(jacobian.device, jacobian.dtype)
        with full_precision(gramian.device):
            gradient = samples[0][0] if skip else strategy.aggregate(jacobian / scale, step) * scale
        self._samples[0].write_vector(torch.where(finite, gradient, torch.nan))
        self._finish(step, skip)

    @torch.no_grad()
    def _finish(self, step: Step, skip: bool) -> None:
        """Write `.grad` of what is not shared, and of the strategy's own parameters."""
        specific = None if skip else self._strategy.specific_weights(step)
        if len(self._samples) > 1:
            specific = torch.ones(len(step.tasks)) if specific is None else specific
            specific = specific / len(self._samples)
        for rows in self._samples:
            rows.write_specific(specific)
        if not skip:
            self._write_own(self._strategy.own_gradients(step))

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
