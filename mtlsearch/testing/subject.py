"""The strategy under test: how to make one, what it claims, and how to ask it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mtlsearch.gradients import LossStrategy, RowStrategy, Step, Strategy, StrategyInfo, get_strategy, strategy_info
from mtlsearch.gradients.registry import as_strategy, strategies
from mtlsearch.gradients.strategy import Kind

Make: TypeAlias = str | StrategyInfo | Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """make: gives a new strategy on each call. label: what failures call it. combines: whether it has a rule for a
    bare Jacobian. The flags and the tolerance: what it claims.
    """

    make: Callable[[], Strategy]
    label: str
    kind: Kind
    samples: int
    combines: bool
    scale_equivariant: bool
    permutation_equivariant: bool
    float32_tolerance: float

    @classmethod
    def of(
        cls,
        make: Make,
        scale_equivariant: bool | None,
        permutation_equivariant: bool | None,
        float32_tolerance: float,
    ) -> Subject:
        """TypeError or ValueError for a `make` that gives no strategy, or the same one twice."""
        maker: Callable[[], Strategy]
        if isinstance(make, str):
            maker = partial(get_strategy, make)
        elif isinstance(make, StrategyInfo):
            maker = make.strategy
        elif callable(make) and not isinstance(make, Strategy):
            maker = partial(_made, make)
        else:
            raise TypeError(
                "make must be the name of a strategy, its StrategyInfo or a callable without arguments that gives a "
                f"new one, such as its class, but got {make!r}"
            )
        strategy = maker()
        if strategy is maker():
            raise ValueError(f"make must give a new strategy on each call, but gave the same {strategy!r} twice")
        info = make if isinstance(make, StrategyInfo) else _record(strategy)
        if scale_equivariant is None:
            scale_equivariant = info is not None and info.scale_equivariant
        if permutation_equivariant is None:
            permutation_equivariant = info is not None and info.permutation_equivariant
        return cls(
            make=maker,
            label=strategy.label,
            kind=strategy.kind,
            samples=strategy.samples if isinstance(strategy, RowStrategy) else 1,
            combines=not isinstance(strategy, LossStrategy) or type(strategy).combine is not LossStrategy.combine,
            scale_equivariant=scale_equivariant,
            permutation_equivariant=permutation_equivariant,
            float32_tolerance=float32_tolerance,
        )

    def new(self, tasks: int) -> Strategy:
        """A new strategy that knows its tasks, "0", "1", …"""
        strategy = self.make()
        strategy.setup(_names(tasks), torch.zeros(()))
        return strategy

    def combine(self, strategy: Strategy, rows: Tensor, losses: Tensor | None = None, index: int = 0) -> Tensor:
        """The gradient (P,) of rows (T, P) in step `index`; losses (T,) are ones unless given.

        A strategy of several samples gets the same rows for each.
        """
        stacked = rows if self.samples == 1 else torch.stack([rows] * self.samples)
        return strategy.combine(stacked, step_of(rows, losses, index))

    def answer(self, strategy: Strategy, rows: Tensor, losses: Tensor, index: int = 0) -> Tensor:
        """What the strategy says in step `index`: the weights (T,) of the losses, or the gradient (P,)."""
        if isinstance(strategy, LossStrategy):
            return strategy.weigh(losses, step_of(losses, losses, index)).detach()
        return self.combine(strategy, rows, losses, index)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """The global generators are afterwards as they were."""
    of_torch, of_numpy, of_python = global_random_state()
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def step_of(rows: Tensor, losses: Tensor | None, index: int) -> Step:
    """Step `index`, in which all tasks of rows (T, …) take part."""
    tasks = len(rows)
    losses = torch.ones(tasks, dtype=rows.dtype) if losses is None else losses
    return Step(index=index, names=_names(tasks), tasks=tuple(range(tasks)), losses=losses)


def global_random_state() -> tuple[Tensor, Any, Any]:
    """The states of torch's, numpy's and Python's generators."""
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _made(make: Callable[[], Any]) -> Strategy:
    return as_strategy(make())


def _names(tasks: int) -> tuple[str, ...]:
    return tuple(map(str, range(tasks)))


def _record(strategy: Strategy) -> StrategyInfo | None:
    """The record of a registered strategy."""
    name = type(strategy).name
    if name in strategies() and strategy_info(name).strategy is type(strategy):
        return strategy_info(name)
    return None


Check: TypeAlias = Callable[[Subject], None]
"""Raises AssertionError for a subject that does not do what the check's name says."""
