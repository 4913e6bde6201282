"""Typed hyperparameters of a strategy, declared once, on the strategy's dataclass fields.

    @dataclass(eq=False)
    class CAGrad(GramianStrategy):
        c: float = hyperparameter(0.5, ge=0, lt=1, search={"uniform": (0.1, 0.9)}, description="radius of
        the ball")

Construction validates them; `StrategyInfo.hyperparameters` lists them for a config layer to build its schema from.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_KEY = "hyperparameter"
_BOUNDS: dict[str, tuple[str, Any]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter: its type, default, bounds (pydantic's names) and default search range.

    `search` is a distribution in Ray Tune's names, e.g. {"loguniform": (1e-3, 1.0)}, or None where a search
    over it makes no sense. For sequences and mappings the bounds hold for each element. None is a valid
    value where it is the default.
    """

    name: str
    type: Any
    default: Any
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    search: Mapping[str, tuple[Any, ...]] | None = None
    description: str = ""

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, e.g. {"ge": 0.0, "lt": 1.0}."""
        return {key: getattr(self, key) for key in _BOUNDS if getattr(self, key) is not None}

    def check(self, strategy: str, value: object) -> None:
        """Raise ValueError when `value` has the wrong type or lies outside the bounds."""
        if value is None and self.default is None:
            return
        if self.type in (bool, str):
            if not isinstance(value, self.type):
                raise ValueError(self._message(strategy, value, f"a {self.type.__name__}"))
            return
        for element in _elements(value):
            wrong = isinstance(element, bool) or not isinstance(element, int if self.type is int else (int, float))
            if wrong or not math.isfinite(typing.cast(float, element)):
                kind = "an int" if self.type is int else "a finite number"
                raise ValueError(self._message(strategy, value, kind + ("" if element is value else " in each place")))
            for key, bound in self.bounds.items():
                if not _BOUNDS[key][1](element, bound):
                    raise ValueError(self._message(strategy, value, f"{_BOUNDS[key][0]} {bound:g}"))

    def _message(self, strategy: str, value: object, must: str) -> str:
        return f"{self.name} of strategy {strategy!r} must be {must}, but got {self.name}={value!r}"


def hyperparameter(
    default: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    search: Mapping[str, tuple[Any, ...]] | None = None,
    description: str = "",
) -> Any:
    """A dataclass field that declares a hyperparameter (see `Hyperparameter`)."""
    frozen = None if search is None else MappingProxyType(dict(search))
    declared = {"ge": ge, "gt": gt, "le": le, "lt": lt, "search": frozen, "description": description}
    return dataclasses.field(default=default, metadata={_KEY: declared})


def hyperparameters_of(strategy: type) -> tuple[Hyperparameter, ...]:
    """The hyperparameters declared on a strategy class, in order."""
    hints = typing.get_type_hints(strategy)
    return tuple(
        Hyperparameter(field.name, hints[field.name], field.default, **field.metadata[_KEY])
        for field in dataclasses.fields(strategy)
        if _KEY in field.metadata
    )


def _elements(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from value
    else:
        yield value
