from __future__ import annotations

import pytest

from mtlsearch.errors import InputError
from mtlsearch.search.plan.distributions import Options, Range, parse_distribution


@pytest.mark.parametrize(
    ("node", "ends"),
    [
        ({"uniform": [0, 2]}, (0, 2)),
        ({"loguniform": [1e-5, 1e-2]}, (1e-5, 1e-2)),
        ({"quniform": [0.1, 0.95, 0.2]}, (0.1, 0.9)),
        ({"randint": [2, 5]}, (2, 4)),
        ({"lograndint": [1, 65]}, (1, 64)),
        ({"uniform": [3, 3]}, (3, 3)),
    ],
)
def test_ranges_have_rays_meaning(node: dict, ends: tuple[float, float]) -> None:
    parameter = parse_distribution("key", node)
    assert isinstance(parameter, Range)
    assert parameter.ends == pytest.approx(ends)
    assert parameter.admits(ends[0])
    assert parameter.admits(ends[1])
    assert not parameter.admits(ends[1] + 0.3)
    assert not parameter.admits(True)
    assert not parameter.admits("0")


def test_a_step_admits_its_multiples_only() -> None:
    parameter = parse_distribution("key", {"quniform": [0.1, 0.9, 0.2]})
    assert isinstance(parameter, Range)
    assert parameter.admits(0.5)
    assert not parameter.admits(0.4)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"uniform": [2, 1]}, "low <= high must hold|needs low <= high, got low=2, high=1"),
        ({"randint": [3, 3]}, "upper end of randint and lograndint is exclusive"),
        ({"randint": [1.5, 3]}, "whole numbers"),
        ({"loguniform": [0, 1]}, "needs low > 0, got low=0"),
        ({"uniform": [1]}, r"needs \[low, high\] as numbers"),
        ({"uniform": ["a", 1]}, "as numbers"),
        ({"uniform": [0, float("inf")]}, "as numbers"),
        ({"quniform": [0, 1]}, r"\[low, high, step\]"),
        ({"quniform": [0, 1, 0]}, "step > 0"),
        ({"choice": []}, "at least one option"),
        ({"choice": "abc"}, "list of at least one option"),
        ({"unifrom": [0, 1]}, "did you mean 'uniform'"),
        ({"normal": [0, 1]}, "unknown distribution 'normal'"),
    ],
)
def test_bad_distributions_are_named_with_their_key(node: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        parse_distribution("optimizer.lr", node)
    assert "optimizer.lr" in str(error.value)


def test_ordinary_values_are_no_distributions() -> None:
    for node in (1, "uniform", [0, 1], {"a": 1, "b": 2}, {"name": "pcgrad"}, {"betas": ["x", "y"]}, {}):
        assert parse_distribution("key", node) is None


def test_options_have_labels_that_storage_can_keep() -> None:
    parameter = parse_distribution(
        "key",
        {"choice": [1, None, "text", {"kind": "wing", "w": 3}, {"name": "pcgrad"}, {"a": 1, "b": 2}, True]},
    )
    assert isinstance(parameter, Options)
    assert parameter.labels == ("1", "null", "text", "wing", "pcgrad", "a=1,b=2", "True")
    assert parameter.value("wing") == {"kind": "wing", "w": 3}


def test_two_options_of_one_name_stay_apart() -> None:
    parameter = parse_distribution("key", {"choice": [{"name": "a", "x": 1}, {"name": "a", "x": 2}, {"name": "a"}]})
    assert isinstance(parameter, Options)
    assert len(set(parameter.labels)) == 3
    assert [parameter.value(label) for label in parameter.labels] == list(parameter.values)
