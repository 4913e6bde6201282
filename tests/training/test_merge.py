from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtlsearch.training.merge import differences, flatten, merge, unflatten

_keys = st.text("abc", min_size=1, max_size=2)
_trees = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda children: st.dictionaries(_keys, children, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def test_mappings_merge_key_by_key() -> None:
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


def test_another_kind_replaces_whole_so_that_keys_never_leak() -> None:
    base = {"loss": {"kind": "smooth_l1", "beta": 1.0, "weight": 2.0}}
    assert merge(base, {"loss": {"kind": "wing", "w": 5}}) == {"loss": {"kind": "wing", "w": 5}}
    assert merge(base, {"loss": {"kind": "smooth_l1", "beta": 3.0}})["loss"]["weight"] == 2.0


def test_another_name_replaces_whole() -> None:
    base = {"strategy": {"name": "cagrad", "c": 0.5}}
    assert merge(base, {"strategy": {"name": "pcgrad"}}) == {"strategy": {"name": "pcgrad"}}


def test_a_distribution_takes_the_place_of_a_subtree_and_a_subtree_that_of_a_distribution() -> None:
    choice = {"choice": [{"name": "pcgrad"}]}
    assert merge({"strategy": {"name": "cagrad", "c": 0.5}}, {"strategy": choice}) == {"strategy": choice}
    assert merge({"lr": {"uniform": [0, 1]}}, {"lr": 0.5}) == {"lr": 0.5}
    assert merge({"optimizer": {"choice": []}}, {"optimizer": {"lr": 1}}) == {"optimizer": {"lr": 1}}


def test_merging_alters_neither_argument() -> None:
    base, changes = {"a": {"b": [1]}}, {"a": {"c": {"d": [2]}}}
    merged = merge(base, changes)
    merged["a"]["b"].append(0)
    merged["a"]["c"]["d"].append(0)
    assert base == {"a": {"b": [1]}}
    assert changes == {"a": {"c": {"d": [2]}}}


@given(_trees)
def test_merging_with_itself_or_nothing_changes_nothing(tree: dict) -> None:
    assert merge(tree, tree) == tree
    assert merge(tree, {}) == tree
    assert differences(tree, merge({}, tree)) == []


@given(_trees, _trees)
def test_what_is_laid_over_wins(base: dict, changes: dict) -> None:
    merged = flatten(merge(base, changes))
    for key, value in flatten(changes).items():
        if value != {}:
            assert merged[key] == value


def test_flatten_and_unflatten() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": {}}
    assert flatten(tree) == {"a.b": 1, "a.c": [1, 2], "d": {}}
    assert unflatten("a.b.c", 5) == {"a": {"b": {"c": 5}}}


def test_differences_name_the_key_and_both_values() -> None:
    lines = differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4})
    assert lines == ["a.b: 1 -> 3", "c: 2 -> absent", "d: absent -> 4"]
