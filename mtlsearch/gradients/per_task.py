"""Hyperparameters that hold one number a task: a sequence in the order of the tasks, or a mapping by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from .registry import unknown_name
from .strategy import Step

PerTask: TypeAlias = "Sequence[float] | Mapping[str, float] | None"


def check_per_task(field: str, given: PerTask, tasks: Sequence[str]) -> None:
    """Raise ValueError when `given` does not fit the declared tasks."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in tasks:
                raise ValueError(unknown_name(f"task in {field}:", name, tasks))
    elif given is not None and len(given) != len(tasks):
        raise ValueError(
            f"{field} must hold one number for each of the {len(tasks)} tasks ({', '.join(tasks)}), but got {given!r}"
        )


def per_task(field: str, given: PerTask, step: Step, default: float) -> list[float]:
    """The numbers of the tasks that take part in the step, in order; `default` where none are given."""
    if given is None:
        return [default] * len(step.tasks)
    if isinstance(given, Mapping):
        if not step.names:
            raise ValueError(f"{field} are given by name, but the tasks have none here; give a sequence of numbers")
        for task in step.tasks:
            if step.names[task] not in given:
                raise ValueError(f"{field} must name every task, but got {dict(given)!r} without {step.names[task]!r}")
        return [float(given[step.names[task]]) for task in step.tasks]
    if max(step.tasks) >= len(given):
        raise ValueError(f"{field} must hold one number for each task, but got {given!r} for task {max(step.tasks)}")
    return [float(given[task]) for task in step.tasks]
