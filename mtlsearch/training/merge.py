"""How one configuration tree is laid over another. Run configs and search spaces share this one rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]

#: keys that say which variant a sub-tree describes; sub-trees of different variants never mix
VARIANT_KEYS = ("kind", "name")
#: a mapping of one of these alone is a distribution of a search space, and stands for all that may be there
DISTRIBUTIONS = ("uniform", "quniform", "loguniform", "randint", "lograndint", "choice", "grid")


def replaces(base: object, changes: object) -> bool:
    """Whether `changes` takes the place of `base` whole instead of being merged into it key by key.

    It does unless both are mappings of the same variant: smooth L1's keys never leak into Wing, and a
    distribution neither takes in keys nor is laid over them.
    """
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return True
    if is_distribution(base) or is_distribution(changes):
        return True
    return any(key in changes and changes[key] != base.get(key) for key in VARIANT_KEYS)


def is_distribution(node: object) -> bool:
    return isinstance(node, Mapping) and len(node) == 1 and next(iter(node)) in DISTRIBUTIONS


def contains_distribution(node: object) -> bool:
    if is_distribution(node):
        return True
    return isinstance(node, Mapping) and any(contains_distribution(value) for value in node.values())


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`base` with `changes` laid over it. Neither argument is altered."""
    merged: Tree = {key: _copy(value) for key, value in base.items()}
    for key, value in changes.items():
        if key in merged and not replaces(merged[key], value):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = _copy(value)
    return merged


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaves: `{"a": {"b": 1}}` -> `{"a.b": 1}`. Lists are leaves."""
    return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(dotted: str, value: Any) -> Tree:
    """`("a.b", 1)` -> `{"a": {"b": 1}}`, the form in which one override is merged."""
    *parents, leaf = dotted.split(".")
    tree: Tree = {leaf: value}
    for parent in reversed(parents):
        tree = {parent: tree}
    return tree


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for every leaf that differs between two trees: `optimizer.lr: 0.003 -> 0.01`."""
    old, new = flatten(before), flatten(after)
    missing = object()
    lines = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key, missing), new.get(key, missing)
        if was != now:
            words = ["absent" if value is missing else repr(value) for value in (was, now)]
            lines.append(f"{key}: {words[0]} -> {words[1]}")
    return lines
