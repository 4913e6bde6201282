"""The distributions that may stand in a search space, with Ray Tune's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.training.merge import DISTRIBUTIONS, VARIANT_KEYS


@dataclass(frozen=True)
class Range:
    """A numeric distribution at one key of a space."""

    key: str
    name: str
    distribution: BaseDistribution

    def admits(self, value: Any) -> bool:
        """Whether a recipe's `value` at this key can be drawn."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        low, high, step = _numbers(self.distribution)
        if not low <= value <= high:
            return False
        return step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-9)

    @property
    def ends(self) -> tuple[float, float]:
        low, high, _ = _numbers(self.distribution)
        return low, high

    @property
    def count(self) -> float:
        """Values that can be drawn; infinite where they are all between the ends, if there is room between them."""
        low, high, step = _numbers(self.distribution)
        if low == high:
            return 1
        return math.inf if step is None else round((high - low) / step) + 1

    @property
    def log(self) -> bool:
        """Whether it is drawn evenly over orders of magnitude."""
        assert isinstance(self.distribution, (FloatDistribution, IntDistribution))
        return self.distribution.log

    def position(self, value: float) -> float:
        """Where `value` lies between the ends, 0 to 1, on the scale that it is drawn on; ½ where there is no width."""
        low, high = self.ends
        if low == high:
            return 0.5
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Options:
    """A `choice` or `grid` at one key: labels, and the sub-tree or value that each stands for."""

    key: str
    name: str
    labels: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.labels)

    def admits(self, label: Any) -> bool:
        """Whether `label` stands for an option."""
        return label in self.labels

    def value(self, label: str) -> Any:
        return self.values[self.labels.index(label)]


def _numbers(distribution: BaseDistribution) -> tuple[float, float, float | None]:
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return distribution.low, distribution.high, distribution.step


def parse_distribution(key: str, node: Any) -> Range | Options | None:
    """The distribution that `node` describes, or None if it is an ordinary value or sub-tree.

    Raises:
        InputError: the node is meant as a distribution and is not a valid one.
    """
    if not (isinstance(node, Mapping) and len(node) == 1):
        return None
    name, arguments = next(iter(node.items()))
    if name in ("choice", "grid"):
        return _parse_options(key, name, arguments)
    if name in DISTRIBUTIONS:
        return _parse_range(key, name, arguments)
    if isinstance(arguments, list) and len(arguments) in (2, 3) and all(_number(item) for item in arguments):
        # two or three numbers under one key look like a distribution; the config's own lists are plain lists
        raise InputError(f"space: {key}: {unknown_name('distribution', name, DISTRIBUTIONS)}")
    return None


def _parse_options(key: str, name: str, options: Any) -> Options:
    if not isinstance(options, list) or not options:
        raise InputError(f"space: {key}: {name} needs a list of at least one option, got {options!r}")
    labels: list[str] = []
    for option in options:
        label = _label(option)
        labels.append(label if label not in labels else f"{label}#{sum(_label(o) == label for o in options)}")
    if len(set(labels)) != len(labels):
        labels = [f"{label}#{position}" for position, label in enumerate(labels, start=1)]
    return Options(key, name, tuple(labels), tuple(options))


def _label(option: Any) -> str:
    if isinstance(option, Mapping):
        return _variant(option) or ",".join(_word(key, value) for key, value in option.items())
    return "null" if option is None else str(option)


def _variant(option: Mapping[str, Any]) -> str | None:
    """What a sub-tree calls itself."""
    return next((option[key] for key in VARIANT_KEYS if isinstance(option.get(key), str)), None)


def _word(key: str, value: Any) -> str:
    """A key of an option that has no name of its own: with its value, or the name of the sub-tree that it holds."""
    if isinstance(value, Mapping):
        name = _variant(value)
        return key if name is None else f"{key}={name}"
    return f"{key}={value}"


def _parse_range(key: str, name: str, bounds: Any) -> Range:
    count = 3 if name == "quniform" else 2
    if not (isinstance(bounds, list) and len(bounds) == count and all(_number(bound) for bound in bounds)):
        words = "[low, high, step]" if count == 3 else "[low, high]"
        raise InputError(f"space: {key}: {name} needs {words} as numbers, got {bounds!r}")
    low, high = bounds[:2]
    if name in ("randint", "lograndint"):
        if not (isinstance(low, int) and isinstance(high, int)):
            raise InputError(f"space: {key}: {name} needs whole numbers, got {bounds!r}")
        high -= 1  # the upper end is exclusive, as in Ray
    if low > high:
        exclusive = " (the upper end of randint and lograndint is exclusive)" if "int" in name else ""
        raise InputError(f"space: {key}: {name} needs low <= high, got low={bounds[0]}, high={bounds[1]}{exclusive}")
    if name.startswith("log") and low <= 0:
        raise InputError(f"space: {key}: {name} needs low > 0, got low={low}")
    if name == "quniform" and bounds[2] <= 0:
        raise InputError(f"space: {key}: quniform needs a step > 0, got {bounds[2]}")
    return Range(key, name, _distribution(name, low, high, bounds))


def _distribution(name: str, low: Any, high: Any, bounds: list[Any]) -> BaseDistribution:
    if name == "randint":
        return IntDistribution(low, high)
    if name == "lograndint":
        return IntDistribution(low, high, log=True)
    if name == "quniform":
        step = float(bounds[2])
        steps = math.floor((high - low) / step + 1e-9)
        return FloatDistribution(float(low), float(low) + steps * step, step=step)
    return FloatDistribution(float(low), float(high), log=name == "loguniform")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
