"""Checks on the losses given to `backward`, and their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .registry import unknown_name

Losses: TypeAlias = "Sequence[Tensor | None] | Mapping[str, Tensor | None] | Tensor"


class TaskNames:
    """The names of the tasks: declared, or learned until the first combination and fixed from then on."""

    def __init__(self, declared: int | Iterable[str] | None) -> None:
        self.fixed = declared is not None
        self.names: list[str] = []
        if isinstance(declared, (bool, str)):
            raise TypeError(f"tasks must be a number of tasks or a list of their names, but got {declared!r}")
        if isinstance(declared, int):
            self.names = [str(i) for i in range(declared)]
        elif declared is not None:
            self.names = list(declared)
        if self.fixed and (not self.names or len(set(self.names)) != len(self.names)):
            raise ValueError(f"tasks must hold at least one name and no name twice, but got {declared!r}")
        if not all(isinstance(name, str) for name in self.names):
            raise TypeError(f"task names must be strings, but got {self.names!r}")

    def resolve(self, losses: Losses) -> dict[int, Tensor]:
        """Losses by the position of their task, in order, checked; tasks given as None are left out."""
        if isinstance(losses, Mapping):
            named: dict[str, Tensor | None] = dict(losses)
        elif isinstance(losses, Tensor) and losses.ndim != 1:
            raise ValueError(
                f"losses must be one scalar for each task, in a list or a dict, but got one tensor of shape "
                f"{tuple(losses.shape)}"
            )
        else:
            values = list(losses)
            if (self.fixed or self.names) and len(values) != len(self.names):
                raise ValueError(
                    f"{len(values)} losses were given for {len(self.names)} tasks "
                    f"({', '.join(self.names)}); give one for each, "
                    "None for a task that takes no part, or a dict of name -> loss"
                )
            named = dict(zip(self.names or [str(i) for i in range(len(values))], values))
        for name in named:
            if name not in self.names and self.fixed:
                raise ValueError(
                    unknown_name("task", name, self.names)
                    + ". Tasks are fixed by tasks=… or by the first step; a task that is absent at first "
                    "must be named in tasks=…"
                )
        for name, loss in named.items():
            _check(name, loss)
        self.names += [name for name in named if name not in self.names]
        return {i: loss for i, name in enumerate(self.names) if (loss := named.get(name)) is not None}

    def counts(self, counts: Mapping[str, float] | Sequence[float] | None) -> dict[int, float]:
        """Sample counts by the position of their task. ValueError for an unknown task or a negative count."""
        if counts is None:
            return {}
        named = dict(counts) if isinstance(counts, Mapping) else dict(zip(self.names, counts))
        if not isinstance(counts, Mapping) and len(counts) != len(self.names):
            raise ValueError(f"{len(counts)} counts were given for {len(self.names)} tasks; give one for each")
        for name, count in named.items():
            if name not in self.names:
                raise ValueError(unknown_name("task", name, self.names))
            if not (math.isfinite(count) and count >= 0):
                raise ValueError(f"the count of task {name!r} must be a number of samples, but is {count!r}")
        return {self.names.index(name): float(count) for name, count in named.items()}


def _check(name: str, loss: object) -> None:
    if loss is None:
        return
    if not isinstance(loss, Tensor):
        raise TypeError(f"the loss of task {name!r} must be a tensor or None, but got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(
            f"the loss of task {name!r} must be a scalar, but has shape {tuple(loss.shape)}; reduce it, e.g. .mean()"
        )
    if not loss.requires_grad:
        raise ValueError(
            f"the loss of task {name!r} does not require grad: it was detached, computed under "
            "torch.no_grad(), or depends on no parameter that is trained; give None for a task that takes "
            "no part"
        )


class LossNotFinite(FloatingPointError):
    """The loss of `task` is `value` ("nan", "inf", or "not finite" where a GPU said so later) at `step`."""

    def __init__(self, task: str, value: str, step: int) -> None:
        super().__init__(
            f"the loss of task {task!r} is {value} at step {step}; lower the learning rate or clip gradients, "
            "give None for a task without labels in the batch, and with a GradScaler call "
            "backward(losses, scaler=scaler)"
        )
        self.task, self.value, self.step = task, value, step

    def __reduce__(self) -> tuple[type, tuple[str, str, int]]:
        return type(self), (self.task, self.value, self.step)


class FiniteWatch:
    """Raises LossNotFinite for a loss that is NaN or infinite, naming its task.

    On the CPU at once. On a GPU a look at the value would wait for the device, so the flags travel to pinned memory
    beside the computation, and the error comes with the first call that finds them arrived.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[torch.cuda.Event, Tensor, list[str], int]] = []

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: object) -> None:
        self._waiting = []

    def look(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Check these losses, and the flags of earlier ones that have arrived."""
        self.poll()
        on_gpu = {name: loss.detach() for name, loss in losses.items() if loss.is_cuda}
        for name, loss in losses.items():
            if name not in on_gpu and not math.isfinite(value := loss.item()):
                raise LossNotFinite(name, str(value), step)
        if on_gpu:
            flags = torch.stack([loss.reshape(()).isfinite() for loss in on_gpu.values()])
            arrived = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
            arrived.copy_(flags, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._waiting.append((event, arrived, list(on_gpu), step))

    def poll(self) -> None:
        """Raise for flags that have arrived; never waits."""
        while self._waiting and self._waiting[0][0].query():
            _, finite, names, step = self._waiting.pop(0)
            for name, fine in zip(names, finite.tolist()):
                if not fine:
                    raise LossNotFinite(name, "not finite", step)
