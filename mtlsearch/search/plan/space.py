"""A search space: a run config tree with a distribution wherever a value could stand.

Distributions nested in an option of a `choice` exist only while that option is chosen, so conditional spaces need
no keyword of their own. A point of the space is a flat mapping from parameter name to value; options are stored
by label, which any storage can keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mtlsearch.errors import InputError
from mtlsearch.search.plan.distributions import Options, Range, parse_distribution
from mtlsearch.training.merge import Tree, differences, is_distribution, merge, replaces

Point = dict[str, Any]
Draw = Callable[[str, "Range | Options"], Any]
"""called with a parameter's name and distribution, returns the value or the option's label"""


@dataclass(frozen=True)
class Space:
    """`base`, a complete run config tree, and `changes`, the tree of distributions laid over it."""

    base: Tree
    changes: Tree

    def __post_init__(self) -> None:
        for _ in self.parameters():  # parses every distribution, so that a bad one is an error here
            pass

    def resolve(self, draw: Draw) -> Tree:
        """The run config tree of one point, asking `draw` for each parameter that the point needs."""
        # what a choice comes to replaces the base's sub-tree whole, as the choice itself does
        return merge(_less_drawn(self.base, self.changes), _resolve(self.changes, "", draw))

    def at(self, point: Mapping[str, Any]) -> Tree:
        """The run config tree at `point`; raises KeyError where the point lacks a parameter that it needs."""
        return self.resolve(lambda name, _: point[name])

    def parameters(self) -> Iterator[tuple[str, Range | Options]]:
        """Every parameter that some point has, options' own parameters after their choice."""
        yield from _parameters(self.changes, "")

    def encode(self, tree: Mapping[str, Any], complete: Callable[[Tree], Tree], source: str) -> Point:
        """The point whose tree is `tree`.

        Args:
            tree: a complete run config tree, every default written out.
            complete: writes out the defaults of a tree that came from the space.
            source: names the tree in errors.

        Raises:
            InputError: naming the keys whose values lie outside the space.
        """
        point: Point = {}
        faults: list[str] = []
        _encode(self.changes, tree, "", point, faults)
        if not faults:
            faults = [f"{line} (recipe -> space)" for line in differences(tree, complete(self.at(point)))]
        if faults:
            raise InputError(f"{source} is not a point of this space: {'; '.join(faults)}")
        return point

    def size(self, ranges: bool = True) -> float:
        """Points of the space, infinite where a range is of all numbers between its ends; without `ranges` the
        combinations of its choices."""
        return _size(self.changes, ranges)

    def grid(self) -> Iterator[Point]:
        """Every point of a space without ranges, the last axis of the file changing fastest.

        Raises:
            InputError: naming a range, which has no end of values.
        """
        turn: list[int] = []
        while True:
            taken: list[tuple[int, int]] = []
            point: Point = {}

            def draw(name: str, parameter: Range | Options) -> str:
                if isinstance(parameter, Range):
                    raise InputError(
                        f"space: {name}: a grid has no place for {parameter.name}; list its values as grid or choice"
                    )
                index = turn[len(taken)] if len(taken) < len(turn) else 0  # noqa: B023 - called before the next turn
                taken.append((index, len(parameter.labels)))  # noqa: B023
                point[name] = parameter.labels[index]  # noqa: B023
                return parameter.labels[index]

            self.resolve(draw)
            yield point
            while taken and taken[-1][0] + 1 == taken[-1][1]:
                taken.pop()
            if not taken:
                return
            turn = [index for index, _ in taken]
            turn[-1] += 1

    def probes(self) -> Iterator[Tree]:
        """A few trees that together hold every option at least once and both ends of every range."""
        for end in (0, 1):
            chosen: dict[str, int] = {}
            while True:
                open_choices: set[str] = set()

                yield self.resolve(_Probe(end, chosen, open_choices))
                if not open_choices:
                    break
                # the innermost open choice moves on, so that an outer one keeps its option until all inside is seen
                chosen[max(open_choices, key=lambda name: (name.count("."), name))] += 1


@dataclass(frozen=True)
class _Probe:
    """Draws one end of every range, and of every choice the option that is its turn; notes which have more."""

    end: int
    chosen: dict[str, int]
    open_choices: set[str]

    def __call__(self, name: str, parameter: Range | Options) -> Any:
        if isinstance(parameter, Range):
            return _native(parameter, parameter.ends[self.end])
        index = self.chosen.setdefault(name, 0)
        if index + 1 < len(parameter.labels):
            self.open_choices.add(name)
        return parameter.labels[index]


def _less_drawn(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """`tree` less every key at which `changes` has a distribution."""
    kept: Tree = {}
    for key, value in tree.items():
        change = changes.get(key)
        if not is_distribution(change):
            inner = isinstance(change, Mapping) and isinstance(value, Mapping)
            kept[key] = _less_drawn(value, change) if inner else value  # type: ignore[arg-type]
    return kept


def _resolve(node: Any, key: str, draw: Draw) -> Any:
    parameter = parse_distribution(key, node)
    if isinstance(parameter, Range):
        return draw(key, parameter)
    if isinstance(parameter, Options):
        label = draw(key, parameter)
        return _resolve(parameter.value(label), f"{key}.{label}", draw)
    if isinstance(node, Mapping):
        return {name: _resolve(value, _join(key, name), draw) for name, value in node.items()}
    return node


def _parameters(node: Any, key: str) -> Iterator[tuple[str, Range | Options]]:
    parameter = parse_distribution(key, node)
    if parameter is not None:
        yield key, parameter
    if isinstance(parameter, Options):
        for label, value in zip(parameter.labels, parameter.values):
            yield from _parameters(value, f"{key}.{label}")
    elif parameter is None and isinstance(node, Mapping):
        for name, value in node.items():
            yield from _parameters(value, _join(key, name))


def _size(node: Any, ranges: bool) -> float:
    parameter = parse_distribution("", node)
    if isinstance(parameter, Range):
        return parameter.count if ranges else 1
    if isinstance(parameter, Options):
        return sum(_size(value, ranges) for value in parameter.values)
    if isinstance(node, Mapping):
        return math.prod(_size(value, ranges) for value in node.values())
    return 1


def _encode(node: Any, value: Any, key: str, point: Point, faults: list[str]) -> None:
    parameter = parse_distribution(key, node)
    if isinstance(parameter, Range):
        if parameter.admits(value):
            point[key] = _native(parameter, value)
        else:
            low, high = parameter.ends
            faults.append(f"{key} = {value!r} is outside {parameter.name} [{low}, {high}]")
    elif isinstance(parameter, Options):
        _encode_option(parameter, value, point, faults)
    elif isinstance(node, Mapping) and isinstance(value, Mapping):
        for name, child in node.items():
            if name in value:
                _encode(child, value[name], _join(key, name), point, faults)
            else:
                faults.append(f"{_join(key, name)} is absent")
    elif not _agree(node, value):
        faults.append(f"{key} = {value!r} and the space fixes {node!r}")


def _agree(node: Any, value: Any) -> bool:
    """Whether a fixed part of a space and of a complete config say the same; what the space leaves to defaults is
    compared when the config that it leads to is complete."""
    if isinstance(node, Mapping) and isinstance(value, Mapping):
        return all(name in value and _agree(child, value[name]) for name, child in node.items())
    if isinstance(node, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(node) == len(value) and all(map(_agree, node, value))
    return bool(node == value)


def _encode_option(parameter: Options, value: Any, point: Point, faults: list[str]) -> None:
    """Takes the first option that leads to `value`; if none does, the faults of the nearest one."""
    nearest: list[str] | None = None
    for label, option in zip(parameter.labels, parameter.values):
        if isinstance(option, Mapping) and isinstance(value, Mapping) and replaces(value, option):
            continue
        attempt: Point = {parameter.key: label}
        wrong: list[str] = []
        _encode(option, value, f"{parameter.key}.{label}", attempt, wrong)
        if not wrong:
            point.update(attempt)
            return
        if isinstance(option, Mapping) and (nearest is None or len(wrong) < len(nearest)):
            nearest = wrong
    faults.extend(nearest or [f"{parameter.key} = {value!r} is not among {', '.join(parameter.labels)}"])


def _native(parameter: Range, value: float) -> float | int:
    return int(value) if "int" in parameter.name else float(value)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
