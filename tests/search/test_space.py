from __future__ import annotations

import random
from typing import Any

import pytest

from mtlsearch.errors import InputError
from mtlsearch.search.plan.distributions import Range
from mtlsearch.search.plan.space import Space

BASE = {
    "losses": {"landmarks": {"kind": "smooth_l1", "beta": 1.0, "weight": 1.0}},
    "strategy": {"name": "pcgrad"},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "epochs": 5,
}
CHANGES = {
    "losses": {
        "landmarks": {
            "choice": [
                {"kind": "smooth_l1", "beta": 1.0, "weight": {"loguniform": [0.1, 10]}},
                {"kind": "wing", "w": {"uniform": [5, 20]}, "weight": {"loguniform": [0.1, 10]}},
            ]
        }
    },
    "strategy": {"choice": [{"name": "pcgrad"}, {"name": "cagrad", "c": {"choice": [0.1, {"uniform": [0.2, 0.9]}]}}]},
    "optimizer": {"lr": {"loguniform": [0.001, 1]}},
    "epochs": {"randint": [3, 6]},
}


def identity(tree: dict) -> dict:
    return tree


def draw_with(rng: random.Random) -> Any:
    def draw(name: str, parameter: Any) -> Any:
        if isinstance(parameter, Range):
            low, high = parameter.ends
            return rng.randint(int(low), int(high)) if "int" in parameter.name else rng.uniform(low, high)
        return rng.choice(parameter.labels)

    return draw


def test_parameters_of_an_option_exist_only_while_it_is_chosen() -> None:
    space = Space(BASE, CHANGES)
    asked: list[str] = []

    def draw(name: str, parameter: Any) -> Any:
        asked.append(name)
        return parameter.ends[0] if isinstance(parameter, Range) else parameter.labels[0]

    tree = space.resolve(draw)
    assert asked == [
        "losses.landmarks",
        "losses.landmarks.smooth_l1.weight",
        "strategy",
        "optimizer.lr",
        "epochs",
    ]
    assert tree["losses"]["landmarks"] == {"kind": "smooth_l1", "beta": 1.0, "weight": 0.1}
    assert tree["optimizer"] == {"name": "sgd", "lr": 0.001, "momentum": 0.9}


def test_a_chosen_variant_replaces_the_bases_whole() -> None:
    point = {
        "losses.landmarks": "wing", "losses.landmarks.wing.w": 6.0, "losses.landmarks.wing.weight": 1.0,
        "strategy": "pcgrad", "optimizer.lr": 0.1, "epochs": 4,
    }  # fmt: skip
    tree = Space(BASE, CHANGES).at(point)
    assert tree["losses"]["landmarks"] == {"kind": "wing", "w": 6.0, "weight": 1.0}


def test_every_drawn_tree_encodes_to_a_point_that_gives_it_back() -> None:
    space, rng = Space(BASE, CHANGES), random.Random(0)
    for _ in range(200):
        tree = space.resolve(draw_with(rng))
        point = space.encode(tree, identity, "drawn")
        assert space.at(point) == tree


def test_the_base_itself_is_a_point() -> None:
    point = Space(BASE, CHANGES).encode(BASE, identity, "base")
    assert point["losses.landmarks"] == "smooth_l1"
    assert point["strategy"] == "pcgrad"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"optimizer": {"name": "sgd", "lr": 5.0, "momentum": 0.9}},
            "optimizer.lr = 5.0 is outside loguniform",
        ),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.5}}, "optimizer.momentum: 0.5 -> 0.9"),
        ({"strategy": {"name": "mgda"}}, "strategy = {'name': 'mgda'} is not among pcgrad, cagrad"),
        ({"epochs": 6}, "epochs = 6 is outside randint"),
        (
            {"losses": {"landmarks": {"kind": "wing", "w": 50, "weight": 1}}},
            "losses.landmarks.wing.w = 50 is outside uniform",
        ),
    ],
)
def test_a_starting_point_outside_the_space_is_refused_and_the_key_named(change: dict, words: str) -> None:
    with pytest.raises(InputError) as error:
        Space(BASE, CHANGES).encode({**BASE, **change}, identity, "recipe")
    assert words in str(error.value)


def test_probes_hold_every_option_and_both_ends() -> None:
    trees = list(Space(BASE, CHANGES).probes())
    kinds = {tree["losses"]["landmarks"]["kind"] for tree in trees}
    strategies = {tree["strategy"]["name"] for tree in trees}
    assert kinds == {"smooth_l1", "wing"}
    assert strategies == {"pcgrad", "cagrad"}
    assert {tree["strategy"]["c"] for tree in trees if "c" in tree["strategy"]} == {0.1, 0.2, 0.9}
    assert {tree["epochs"] for tree in trees} == {3, 5}
    assert {tree["losses"]["landmarks"].get("w") for tree in trees} == {None, 5.0, 20.0}


def test_a_bad_distribution_deep_in_an_option_is_found_at_once() -> None:
    with pytest.raises(InputError, match=r"a\.x\.lr"):
        Space({}, {"a": {"choice": [{"name": "x", "lr": {"uniform": [2, 1]}}]}})


def test_a_grid_is_every_combination_once_with_conditional_axes() -> None:
    changes = {
        "seed": {"grid": [0, 1]},
        "strategy": {"grid": [{"name": "pcgrad"}, {"name": "cagrad", "c": {"choice": [0.1, 0.5]}}]},
        "epochs": {"choice": [3, 5]},
    }
    space = Space(BASE, changes)
    trees = [space.at(point) for point in space.grid()]
    seen = [(t["seed"], t["strategy"]["name"], t["strategy"].get("c"), t["epochs"]) for t in trees]
    assert seen[:2] == [(0, "pcgrad", None, 3), (0, "pcgrad", None, 5)]
    assert len(seen) == len(set(seen)) == 2 * (1 + 2) * 2


def test_a_grid_has_no_ranges() -> None:
    with pytest.raises(InputError, match=r"optimizer\.lr: a grid has no place for loguniform"):
        list(Space(BASE, {"optimizer": {"lr": {"loguniform": [0.001, 1]}}}).grid())


def test_a_choice_replaces_the_bases_sub_tree_whole() -> None:
    base = {"heads": {"a": {"kind": "x"}, "b": {"kind": "y"}}, "lr": 1}
    space = Space(base, {"heads": {"choice": [{"c": {"kind": "z"}}, {"a": {"kind": "w"}}]}})
    trees = [space.at(point) for point in space.grid()]
    assert [tree["heads"] for tree in trees] == [{"c": {"kind": "z"}}, {"a": {"kind": "w"}}]
