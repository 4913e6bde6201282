"""Stopping rules: rungs, orders with several objectives, brackets, the median, and that journals bring them back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsearch.search.early_stopping import Hyperband, MedianRule, SuccessiveHalving, make_rule
from mtlsearch.search.early_stopping.rule import Never
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.study.pareto import best_first, fronts, spread_order

ONE = {"val/a": "min"}
TWO = {"val/a": "min", "val/b": "max"}


def test_rungs_grow_by_the_reduction_factor_and_end_before_the_last_epoch() -> None:
    assert SuccessiveHalving(ONE, 1, 3, 27).milestones == (1, 3, 9)
    assert SuccessiveHalving(ONE, 1, 3, 28).milestones == (1, 3, 9, 27)
    assert SuccessiveHalving(ONE, 2, 2, 6).milestones == (2, 4)
    assert SuccessiveHalving(ONE, 2, 3, 80, bracket=1).milestones == (6, 18, 54)
    assert SuccessiveHalving(ONE, 5, 3, 5).milestones == ()


def test_the_best_third_of_those_so_far_goes_on() -> None:
    rule = SuccessiveHalving(ONE, 1, 3, 9)
    decisions = [rule.stops(trial, 1, {"val/a": value}) for trial, value in enumerate([5.0, 4.0, 6.0, 4.5, 3.0])]
    # best of 1, best of 2, worst of 3, second of 4 (two may go on), best of 5
    assert decisions == [False, False, True, False, False]
    assert not rule.stops(0, 2, {"val/a": 99.0}), "between rungs nobody stops"
    assert not rule.stops(0, 3, {"val/a": 99.0}), "the first at a rung goes on"
    assert rule.stops(1, 3, {"val/a": 100.0})


def test_a_figure_that_is_no_number_is_worse_than_any() -> None:
    rule = SuccessiveHalving(ONE, 1, 2, 9)
    rule.stops(0, 1, {"val/a": 1e9})
    assert rule.stops(1, 1, {"val/a": float("nan")})
    assert rule.stops(2, 1, {})


def test_maximised_objectives_count_the_other_way() -> None:
    rule = SuccessiveHalving({"val/a": "max"}, 1, 2, 9)
    rule.stops(0, 1, {"val/a": 0.9})
    assert rule.stops(1, 1, {"val/a": 0.5})
    assert not rule.stops(2, 1, {"val/a": 0.95})


def test_with_two_objectives_a_specialist_of_the_second_survives() -> None:
    """On the first objective alone it would be stopped."""
    rows = [(1.0, 0.1), (1.1, 0.1), (1.2, 0.1), (9.0, 0.9)]
    both, first = SuccessiveHalving(TWO, 1, 2, 9), SuccessiveHalving({"val/a": "min"}, 1, 2, 9)
    for trial, (a, b) in enumerate(rows):
        last = [rule.stops(trial, 1, {"val/a": a, "val/b": b}) for rule in (both, first)]
    assert last == [False, True]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=25))
def test_fronts_are_the_definition(rows: list[tuple[int, int, int]]) -> None:
    costs = np.array(rows, float)
    left = list(range(len(rows)))
    for front in fronts(costs):
        expected = [
            i for i in left if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in left)
        ]
        assert front.tolist() == expected
        left = [i for i in left if i not in expected]
    assert not left
    assert sorted(best_first(costs).tolist()) == list(range(len(rows)))


def test_the_spread_takes_the_ends_before_what_lies_between() -> None:
    costs = np.array([[0.5, 0.5], [0.0, 1.0], [0.52, 0.48], [1.0, 0.0]])
    assert spread_order(costs).tolist() == [1, 3, 0, 2]


def test_brackets_are_drawn_by_number_with_the_stated_weights() -> None:
    made = [Hyperband(ONE, 1, 3, 81, 3, seed) for seed in (0, 0, 1)]
    drawn = [[rule.bracket_of(trial) for trial in range(3000)] for rule in made]
    assert drawn[0] == drawn[1] != drawn[2]
    shares = np.bincount(drawn[0]) / 3000
    np.testing.assert_allclose(shares, np.array([9, 3, 1]) / 13, atol=0.03)
    assert Hyperband(ONE, 4, 3, 6, 5, 0).bracket_of(7) == 0, "brackets without a rung are left out"


def test_a_late_bracket_spares_a_late_bloomer() -> None:
    rule = Hyperband(ONE, 1, 3, 27, 3, seed=0)
    late = next(trial for trial in range(100, 200) if rule.bracket_of(trial) == 2)
    for trial in range(30):
        rule.stops(trial, 1, {"val/a": 1.0})
    assert not rule.stops(late, 1, {"val/a": 50.0})


def test_the_median_of_running_averages() -> None:
    rule = MedianRule("val/a", "min", grace_epochs=2, min_trials=2)
    for trial, values in enumerate([[4.0, 2.0], [6.0, 4.0], [5.0, 3.0]]):
        assert not any(rule.stops(trial, epoch, {"val/a": value}) for epoch, value in enumerate(values, start=1))
    # averages to epoch 2 are 3, 5 and 4
    assert not rule.stops(3, 1, {"val/a": 90.0}), "in its grace"
    assert rule.stops(3, 2, {"val/a": 4.5})
    rule.stops(4, 1, {"val/a": 90.0})
    assert not rule.stops(4, 2, {"val/a": 3.9})


@pytest.mark.parametrize(
    "make",
    [
        lambda: SuccessiveHalving(TWO, 1, 2, 16),
        lambda: Hyperband(ONE, 1, 2, 16, 3, 0),
        lambda: MedianRule("val/a", "min", 2, 2),
    ],
)
def test_a_replayed_journal_brings_a_rule_back(make) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    events = [
        (trial, epoch, {"val/a": rng.random(), "val/b": rng.random()}) for epoch in range(1, 9) for trial in range(12)
    ]
    whole, begun, continued = make(), make(), make()
    expected = [whole.stops(*event) for event in events]
    half = len(events) // 2
    first = [begun.stops(*event) for event in events[:half]]
    for event in events[:half]:
        continued.stops(*event)
    assert first + [continued.stops(*event) for event in events[half:]] == expected
    assert any(expected) and not all(expected)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("asha", SuccessiveHalving),
        ("mo_asha", SuccessiveHalving),
        ("hyperband", Hyperband),
        ("median", MedianRule),
        ("none", Never),
    ],
)
def test_settings_name_their_rule(name: str, kind: type) -> None:
    settings = SearchSettings.model_validate({"objectives": {"val/x": "min"}, "early_stopping": name})
    assert type(make_rule(settings, epochs=27)) is kind
