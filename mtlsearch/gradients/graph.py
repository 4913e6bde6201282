"""Which parameters are shared, specific to a task or unused: from the autograd graph, or as given."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from .linear import Product
from .tape import Tape

Gradient: TypeAlias = "Tensor | Product | None"


class ParameterSets:
    """Who reaches what. Shared: reached by two tasks or more, in this step or any before, or as given.

    Remembering earlier steps keeps the sets stable while tasks come and go (a batch without labels for one of them).
    Parameters are told apart by identity.
    """

    def __init__(self, shared: Iterable[Tensor] | nn.Module | None = None) -> None:
        self._given: list[Tensor] | None = None
        if shared is not None:
            self._given = list(shared.parameters() if isinstance(shared, nn.Module) else shared)
            if not self._given or not all(isinstance(parameter, Tensor) for parameter in self._given):
                raise ValueError(
                    "shared must be a module or an iterable of its parameters, at least one, e.g. "
                    f"model.backbone.parameters(), but got {self._given!r:.200}"
                )
        # Parameter -> bit mask of the tasks known to reach it.
        self._reached: dict[Tensor, int] = {}
        self._patterns: dict[int, list[bool]] = {}
        self._compiled: set[int] = set()
        self._settled: set[int] = set()

    @property
    def given(self) -> bool:
        """Whether the shared parameters were named by the user."""
        return self._given is not None

    def is_new(self, task: int) -> bool:
        """Whether this task has not been observed yet."""
        return task not in self._patterns

    def mark_compiled(self, task: int) -> None:
        """The task's loss comes through a compiled module: its zero gradients must be looked at."""
        self._compiled.add(task)

    def observe(self, task: int, parameters: Sequence[Tensor], gradients: Sequence[Gradient]) -> None:
        """Record which of `parameters` the task's loss reaches: those with a gradient.

        Behind a compiled module a gradient of zeros means "not reached". The first steps look at the values, which
        waits for the device, until every parameter is known to be reached by some task; then what was seen stands.
        """
        if self.given:
            self._patterns.setdefault(task, [])
            return
        pattern = [gradient is not None for gradient in gradients]
        if self._patterns.get(task) == pattern and (task not in self._compiled or task in self._settled):
            return
        settled = True
        self._patterns[task] = pattern
        for parameter, gradient in zip(parameters, gradients):
            known = self._reached.get(parameter, 0)
            if gradient is None or known & (1 << task):
                continue
            if task in self._compiled and isinstance(gradient, Tensor) and not gradient.count_nonzero():
                settled = settled and known != 0
                continue
            self._reached[parameter] = known | (1 << task)
        if settled:
            self._settled.add(task)

    def shared(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Those of `parameters` that are shared, in the same order."""
        if self._given is not None:
            given = set(self._given)
            return [parameter for parameter in parameters if parameter in given]
        # A mask with two bits or more: not a power of two.
        masks = ((parameter, self._reached.get(parameter, 0)) for parameter in parameters)
        return [parameter for parameter, mask in masks if mask & (mask - 1)]

    def foreseen(self, tape: Tape, parameters: Sequence[Tensor]) -> list[Tensor]:
        """`shared` if the tasks reach what the graph says, which a pass can still refute."""
        if self.given:
            return self.shared(parameters)
        masks = {leaf: tape.reached[node] for leaf, node in tape.leaves.items()}
        both = ((parameter, self._reached.get(parameter, 0) | masks.get(parameter, 0)) for parameter in parameters)
        return [parameter for parameter, mask in both if mask & (mask - 1)]

    def foresee(self, tape: Tape, tasks: Iterable[int], parameters: Sequence[Tensor]) -> None:
        """Take the graph's word for tasks and parameters of which no gradient has been observed."""
        new = any(self.is_new(task) for task in tasks)
        for parameter in parameters:
            if not new and parameter in self._reached:
                continue
            node = tape.leaves.get(parameter)
            if node is not None and not self.given and not tape.compiled:
                mask = self._reached.get(parameter, 0) | tape.reached[node]
                self._reached[parameter] = mask

    def merge(self, parameters: Sequence[Tensor], masks: Sequence[int]) -> None:
        """Take over what other ranks have seen: masks of tasks as `state_dict` gives them."""
        for parameter, mask in zip(parameters, masks):
            if mask:
                self._reached[parameter] = mask

    def state_dict(self, parameters: Sequence[Tensor]) -> list[int]:
        """The masks of known tasks, one a parameter."""
        return [self._reached.get(parameter, 0) for parameter in parameters]

    def load_state_dict(self, parameters: Sequence[Tensor], masks: Sequence[int]) -> None:
        self._reached = {parameter: int(mask) for parameter, mask in zip(parameters, masks) if mask}
        self._patterns.clear()
        self._settled.clear()


def check_reach(task: str, leaves: set[Tensor], parameters: Sequence[Tensor]) -> None:
    """Raise when a loss reaches no parameter of the optimizer; warn of others, which get no gradient."""
    if leaves.isdisjoint(parameters):
        raise ValueError(
            f"the loss of task {task!r} reaches no parameter of this optimizer; was it computed by another "
            "model, or is part of the graph detached?"
        )
    outside = [leaf for leaf in leaves.difference(parameters) if isinstance(leaf, nn.Parameter)]
    if outside:
        warnings.warn(
            f"the loss of task {task!r} reaches {len(outside)} parameters that this optimizer does not "
            "hold; they get no gradient. Give them to the wrapped optimizer (add_param_group), or freeze "
            "them with requires_grad_(False)",
            stacklevel=5,
        )
