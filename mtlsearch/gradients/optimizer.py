"""`MultiTaskOptimizer` and `PCGrad`: any torch optimizer, fed by a gradient-combination strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from .diagnostics import Diagnostics
from .engines import Call, EngineName, FeatureEngine, engine_for
from .losses import FiniteWatch, Losses, TaskNames
from .ranks import Group
from .registry import as_strategy
from .sharded import ranks_for
from .strategy import Step, Strategy

# Where our part of a state_dict lies, beside the wrapped optimizer's "state" and "param_groups".
_KEY = "multitask"


@dataclass
class _Progress:
    """What a step changes; an object of its own, since wrappers (Lightning's) share our attributes, not our name."""

    step: int = 0
    diagnostics: Diagnostics | None = None


class MultiTaskOptimizer(torch.optim.Optimizer):
    """A torch optimizer around another one, whose `backward` combines the gradients of several tasks.

    optimizer: any torch optimizer; its param_groups, state and defaults are shared, so learning-rate
        schedulers, clipping and GradScaler work on this object as on any optimizer.
    strategy: a name (see `strategies()`), a Strategy, or a callable jacobian (T, P) -> gradient (P,).
    tasks: names of the tasks or how many there are. Needed by strategies with parameters of their own;
        otherwise learned from the first step.
    shared: the parameters whose gradients are combined (a module or an iterable of parameters). By default
        those that two losses or more reach. Others get the plain sum of their gradients.
    engine: "rows" forms every task's gradient; "ghost" combines those of linear layers without forming them, the same
        up to rounding; "auto" does what costs less, layer by layer. "feature" combines gradients with respect to the
        features that the tasks share, with one trunk backward: another, cheaper algorithm.
    update_every: find the weights every k-th step only, and make one trunk backward with them in between.
    process_group: the processes that train together; by default all of torch.distributed, if it is initialised.
        Combined are then the task gradients of the whole batch, and `.grad` is the same on all ranks, with or without
        a DistributedDataParallel wrapper. False keeps this process to itself.
    seed: of the strategy's random draws, which are keyed by (seed, step) and leave the global generator be.

        optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), strategy="pcgrad")
        optimizer.zero_grad()
        optimizer.backward({"landmarks": loss_a, "pose": loss_b})
        optimizer.step()
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        strategy: str | Strategy | Callable[[Tensor], Tensor] = "pcgrad",
        tasks: int | Iterable[str] | None = None,
        shared: Iterable[Tensor] | nn.Module | None = None,
        seed: int = 0,
        engine: EngineName = "auto",
        update_every: int = 1,
        process_group: Group = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"{type(self).__name__} wraps a torch optimizer, e.g. "
                f"torch.optim.SGD(model.parameters(), lr=0.1), but got {type(optimizer).__name__}"
            )
        if isinstance(optimizer, MultiTaskOptimizer):
            raise TypeError(f"{type(optimizer).__name__} already combines tasks; wrap the plain optimizer instead")
        self.optimizer = optimizer
        self.strategy = as_strategy(strategy)
        self.seed = seed
        self._tasks = TaskNames(tasks)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._ranks = ranks_for(process_group, parameters)
        if self._ranks is not None and shared is not None:
            given = shared.parameters() if isinstance(shared, nn.Module) else shared
            shared = [self._ranks.stand_in(parameter) for parameter in given]
        self._engine = engine_for(self.strategy, shared, engine, update_every, self._ranks)
        self._watch = FiniteWatch()
        self._progress = _Progress()
        # Optimizer.__init__ would make groups and state of its own; this sets up hooks and the step wrapper.
        super().__setstate__({})
        if tasks is not None:
            self.strategy.setup(self._tasks.names, self._parameters()[0])
        elif self.strategy.needs_tasks:
            raise ValueError(
                f"strategy {self.strategy.name!r} has parameters for each task, so the tasks must be named "
                f"when the optimizer is built: {type(self).__name__}(optimizer, "
                f'strategy="{self.strategy.name}", tasks=["landmarks", "pose"])'
            )
        if own := self.strategy.parameters():
            undecayed = {"weight_decay": 0.0} if "weight_decay" in optimizer.defaults else {}
            optimizer.add_param_group({"params": own, **undecayed})

    # What belongs to the wrapped optimizer. Properties, because its load_state_dict replaces these objects.
    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        return self.optimizer.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.optimizer.defaults = defaults

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks known so far; for losses given as a list, "0", "1", …"""
        return tuple(self._tasks.names)

    @property
    def diagnostics(self) -> Diagnostics:
        """Cosines, conflicts, norms and weights of the last combination."""
        if self._progress.diagnostics is None:
            raise RuntimeError("no diagnostics before the first backward(losses) or combine()")
        return self._progress.diagnostics

    def backward(
        self,
        losses: Losses,
        combine: bool = True,
        scaler: GradScaler | None = None,
        features: Tensor | Iterable[Tensor] = (),
        counts: Mapping[str, float] | Sequence[float] | None = None,
    ) -> None:
        """Backward of every task's loss, and their combination added to `.grad`.

        losses: one scalar a task, in a sequence (in the order of the tasks) or a mapping name -> loss; None
            for a task that takes no part. Static weights are the caller's: multiply the losses.
        combine: False only accumulates, for micro-batches and for tasks with batches of their own; the
            last call, or `combine()`, combines what has come together. A loss strategy, whose backward is
            linear in the losses, fills `.grad` at once. For a strategy with `samples` of 2 or 3 each call is
            one sample.
        scaler: a GradScaler. The strategy sees unscaled losses and gradients; `.grad` stays scaled for
            `scaler.step(optimizer)`, which skips the step when any gradient is not finite.
        features: for engine="feature", the tensors through which the tasks depend on the shared parameters. By default
            those where the graphs of the losses part.
        counts: over several processes, how many labelled samples each loss is the mean of here. A task's loss over the
            whole batch is the mean over ranks weighted with these; by default over the ranks that have it, evenly.

        Raises FloatingPointError when a loss is NaN or infinite and there is no scaler (on a GPU with a later call:
        looking at once would wait for the device), ValueError or TypeError for losses that cannot be used or share no
        parameter, RuntimeError when the processes are out of step. After an error nothing waits to be combined.
        """
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        names = list(self._tasks.names)
        try:
            given, counted, seen = self._checked(losses, counts, features, combine)
            given, values = self._joined(given, counted)
            if scaler is None:
                self._watch.look({self.tasks[task]: value for task, value in values.items()}, self._progress.step)
            self._engine.backward(Call(given, self._parameters(), scaler, combine, values, seen), self._now())
        except BaseException:
            self._engine.clear()
            if not self._tasks.fixed:
                self._tasks.names = names
            raise
        if combine:
            self.combine()
        elif self._ranks is not None:
            self._ranks.publish()

    def _checked(
        self,
        losses: Losses,
        counts: Mapping[str, float] | Sequence[float] | None,
        features: Tensor | Iterable[Tensor],
        combine: bool,
    ) -> tuple[dict[int, Tensor], dict[int, float], tuple[Tensor, ...]]:
        """The arguments of `backward`, by task; a rank that was given wrong ones says so to the others."""
        try:
            given = self._tasks.resolve(losses)
            if not given and self._ranks is None and not (combine and self._engine.pending):
                raise ValueError("every loss is None: no task takes part; skip this batch")
            seen = (features,) if isinstance(features, Tensor) else tuple(features)
            if seen and not isinstance(self._engine, FeatureEngine):
                raise ValueError("features=… is for engine='feature'; this optimizer combines gradients of parameters")
            return given, self._tasks.counts(counts), seen
        except BaseException:
            if self._ranks is not None:
                self._ranks.fail()
            raise

    def _joined(
        self, losses: dict[int, Tensor], counts: dict[int, float]
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """This rank's share of each loss, and the losses of the whole batch."""
        if self._ranks is None:
            return losses, {task: loss.detach().reshape(()) for task, loss in losses.items()}
        shares, values = self._ranks.share(losses, counts, self.tasks, self._progress.step)
        if not values and not self._engine.pending:
            raise ValueError("every loss is None or counts 0 on every rank: no task takes part; skip this batch")
        if self._progress.step in (0, 1, 10, 100) or self._progress.step % 1000 == 0:
            self._ranks.check_parameters(self._parameters())
        with torch.enable_grad():
            kept = [task for task in losses if shares.get(task) or (self._ranks.sharded and task in shares)]
            return {task: losses[task] * shares[task] for task in kept}, values

    pc_backward = backward
    """The name in an older PCGrad wrapper."""

    def combine(self) -> None:
        """Combine what `backward(…, combine=False)` has accumulated, and add it to `.grad`."""
        if not self._engine.pending:
            raise RuntimeError("nothing to combine: call backward(losses, combine=False) first")
        try:
            self._progress.diagnostics = self._engine.combine(self._now())
        finally:
            self._engine.clear()
        if self._ranks is not None:
            self._ranks.publish()
        self._tasks.fixed = True
        self._progress.step += 1

    def step(self, closure: Callable[[], None] | None = None) -> None:  # type: ignore[override]
        """Step of the wrapped optimizer, after one `backward(losses)`: a closure that gives a loss is refused.

        One that gives nothing is called first: Lightning passes one, to run its hooks.
        """
        if closure is not None and closure() is not None:
            raise ValueError(
                f"{type(self).__name__}.step takes no closure, because re-evaluating losses needs "
                "`backward(losses)`: call zero_grad(), backward(losses) and step() in turn"
            )
        if self._engine.holds_gradients:
            waiting = ", ".join(self.tasks[task] for task in self._engine.pending)
            raise RuntimeError(f"gradients of {waiting} wait to be combined: call combine() before step()")
        self._watch.poll()
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear `.grad` as the wrapped optimizer does, and gradients that wait to be combined."""
        self._engine.clear()
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group to the wrapped optimizer."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state_dict, and under "multitask" ours: tensors and plain types only."""
        self._refuse_waiting("saved")
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self.optimizer.state_dict()
        state[_KEY] = {
            "strategy": self.strategy.label,
            "strategy_state": self.strategy.state_dict(),
            "tasks": list(self._tasks.names),
            "tasks_fixed": self._tasks.fixed,
            "reached": self._engine.sets.state_dict(self._parameters()),
            "step": self._progress.step,
            "seed": self.seed,
            "engine": self._engine.state_dict(),
        }
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. ValueError for the state of another strategy or other tasks."""
        state_dict = dict(state_dict)
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        if _KEY not in state_dict:
            raise ValueError(
                f"this is the state_dict of a plain optimizer, not of {type(self).__name__}; load it into "
                "the wrapped one: optimizer.optimizer.load_state_dict(…)"
            )
        ours = state_dict[_KEY]
        if ours["strategy"] != self.strategy.label:
            raise ValueError(
                f"this state_dict belongs to strategy {ours['strategy']!r}, but this optimizer has "
                f"{self.strategy.label!r}; build it with the saved strategy, or load only the wrapped "
                "optimizer's part"
            )
        if ours["tasks"] and self._tasks.names and list(ours["tasks"]) != self._tasks.names:
            raise ValueError(
                f"this state_dict belongs to the tasks {', '.join(ours['tasks'])}, but this optimizer has "
                f"{', '.join(self._tasks.names)}; name the tasks as they were, in the same order"
            )
        self._engine.clear()
        self.optimizer.load_state_dict({key: value for key, value in state_dict.items() if key != _KEY})
        self.strategy.load_state_dict(ours["strategy_state"])
        self._engine.sets.load_state_dict(self._parameters(), ours["reached"])
        self._engine.load_state_dict(ours.get("engine", {}))
        self._tasks.names = self._tasks.names or list(ours["tasks"])
        self._tasks.fixed = self._tasks.fixed or ours["tasks_fixed"]
        self._progress.step, self.seed = ours["step"], ours["seed"]
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_waiting("copied or pickled")
        kept = ("optimizer", "strategy", "seed", "_tasks", "_engine", "_ranks", "_watch", "_progress")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        super().__setstate__({})

    def __repr__(self) -> str:
        tasks = ", ".join(self.tasks) or "not known yet"
        return f"{type(self).__name__}(\n  strategy: {self.strategy}\n  tasks: {tasks}\n  {self.optimizer}\n)"

    def _refuse_waiting(self, what: str) -> None:
        if self._engine.pending:
            raise RuntimeError(
                f"gradients wait to be combined and cannot be {what}: call combine() first, or zero_grad() to drop them"
            )

    def _now(self) -> Step:
        return Step(index=self._progress.step, seed=self.seed, names=self.tasks)

    def _parameters(self) -> list[Tensor]:
        own = set(self.strategy.parameters())
        parameters = [p for group in self.param_groups for p in group["params"] if p not in own]
        return parameters if self._ranks is None else [self._ranks.stand_in(parameter) for parameter in parameters]


class PCGrad(MultiTaskOptimizer):
    """`MultiTaskOptimizer` with strategy "pcgrad": projects conflicting gradients and sums them.

    Yu et al. 2020, Algorithm 1. The arguments are those of `MultiTaskOptimizer`.

        optimizer = PCGrad(torch.optim.Adam(model.parameters(), lr=1e-3))
        optimizer.zero_grad()
        optimizer.backward([loss_a, loss_b])
        optimizer.step()
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        tasks: int | Iterable[str] | None = None,
        shared: Iterable[Tensor] | nn.Module | None = None,
        seed: int = 0,
        engine: EngineName = "auto",
        update_every: int = 1,
        process_group: Group = None,
    ) -> None:
        super().__init__(optimizer, "pcgrad", tasks, shared, seed, engine, update_every, process_group)
