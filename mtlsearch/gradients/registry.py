"""Every strategy by name. A new one is a file in strategies/ with an `INFO` record, and a line in
`_NAMES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from torch import Tensor

from .hyperparameters import Hyperparameter, hyperparameters_of
from .strategy import FunctionStrategy, Kind, RowStrategy, Strategy

# Module names in strategies/, which are the strategies' names. Imported when asked for.
_NAMES = (
    "aligned_mtl",
    "cagrad",
    "config",
    "cosmos",
    "cr_mogm",
    "db_mtl",
    "dualproj",
    "dwa",
    "excess_mtl",
    "fairgrad",
    "famo",
    "gls",
    "graddrop",
    "gradnorm",
    "gradvac",
    "imtl",
    "imtl_g",
    "imtl_l",
    "mgda",
    "moco",
    "modo",
    "nash_mtl",
    "pbi",
    "pcd",
    "pcgrad",
    "rgw",
    "rlw",
    "sdmgrad",
    "stch",
    "uncertainty",
    "upgrad",
    "weighted_sum",
)


@dataclass(frozen=True)
class Paper:
    """Where a strategy was published."""

    authors: str
    year: int
    title: str
    venue: str = ""
    arxiv: str = ""


@dataclass(frozen=True)
class StrategyInfo:
    """What a strategy is and needs, for tests, documentation and config layers.

    scale_equivariant: combine(c·J) = c·combine(J) for every c > 0. permutation_equivariant: the result does not depend
    on the order of the tasks (for random strategies: not even draw by draw).
    """

    strategy: type[Strategy]
    paper: Paper | None = None
    scale_equivariant: bool = False
    permutation_equivariant: bool = False

    @property
    def name(self) -> str:
        return self.strategy.name

    @property
    def kind(self) -> Kind:
        """ "gramian", "rows" or "loss": what the strategy looks at."""
        return self.strategy.kind

    @property
    def needs_tasks(self) -> bool:
        """Whether the tasks must be named when the optimizer is built."""
        return self.strategy.needs_tasks

    @property
    def samples(self) -> int:
        """How many independent samples of each task's gradient a step needs."""
        return self.strategy.samples if issubclass(self.strategy, RowStrategy) else 1

    @cached_property
    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        return hyperparameters_of(self.strategy)


def strategies() -> list[str]:
    """The names of all strategies, sorted."""
    return sorted(_NAMES)


def strategy_info(name: str) -> StrategyInfo:
    """The record of a strategy. Raises ValueError, with the nearest name, for an unknown one."""
    if name not in _NAMES:
        raise ValueError(unknown_name("strategy", name, _NAMES))
    return import_module(f"{__package__}.strategies.{name}").INFO


def get_strategy(name: str, **hyperparameters: Any) -> Strategy:
    """A new strategy. ValueError for an unknown name or hyperparameter and for a value out of range."""
    info = strategy_info(name)
    allowed = [hyperparameter.name for hyperparameter in info.hyperparameters]
    for given in hyperparameters:
        if given not in allowed:
            raise ValueError(unknown_name(f"hyperparameter of strategy {name!r}:", given, allowed))
    return info.strategy(**hyperparameters)


def as_strategy(strategy: str | Strategy | Callable[[Tensor], Tensor]) -> Strategy:
    """A strategy from its name, itself, or a callable jacobian (T, P) -> gradient (P,)."""
    if isinstance(strategy, str):
        return get_strategy(strategy)
    if isinstance(strategy, Strategy):
        return strategy
    if isinstance(strategy, type) or not callable(strategy):
        raise TypeError(
            f"strategy must be a name ({', '.join(strategies())}), a Strategy object or a callable "
            f"jacobian (T, P) -> gradient (P,), but got {strategy!r}"
        )
    return FunctionStrategy(function=strategy)


def unknown_name(kind: str, given: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not allowed, with the nearest allowed one if there is one near."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}{hint} (allowed: {', '.join(names) or 'none'})"
