from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsearch.search.judging.confirm import Confirmed, confirmation_csv, fresh_seeds, ranking
from mtlsearch.search.judging.winner import candidates, mean_ratio, pareto_front, rank
from mtlsearch.search.plan.settings import FirstObjective, SearchSettings, Within
from mtlsearch.search.study.study import TrialState

OBJECTIVES = {"val/nme": "min", "val/mae": "min"}


def trial(number: int, nme: float, mae: float, label: str = "", status: str = "finished") -> TrialState:
    row = {"epoch": 1.0, "best/epoch": 1.0, "best/val/nme": nme, "best/val/mae": mae}
    return TrialState(number, "search", label, {}, history=[row], status=status)  # type: ignore[arg-type]


def test_the_rule_is_the_mean_ratio_to_the_better_baseline() -> None:
    trials = [
        trial(0, 10.0, 10.0, "published"),
        trial(1, 8.0, 8.0, "plain"),
        trial(2, 4.0, 9.0),  # mean ratio √(0.5 · 1.125) = 0.75
        trial(3, 6.5, 6.5),  # 0.8125
    ]
    assert [one.number for one in candidates(trials, OBJECTIVES)] == [2, 3, 1, 0]
    assert mean_ratio(trials[2].best, trials[1].best, OBJECTIVES) == pytest.approx(0.75)


def test_dominated_trials_stopped_trials_and_failures_do_not_win() -> None:
    trials = [
        trial(0, 5, 5, "base"),
        trial(1, 1, 1, status="stopped"),
        trial(2, 1, 1, status="failed"),
        trial(3, 6, 6),
    ]
    assert [one.number for one in candidates(trials, OBJECTIVES)] == [0, 3]
    assert candidates([trial(0, 1, 1, status="failed")], OBJECTIVES) == []


def test_objectives_to_be_maximised() -> None:
    objectives = {"val/accuracy": "max"}
    assert mean_ratio({"val/accuracy": 0.9}, {"val/accuracy": 0.6}, objectives) == pytest.approx(2 / 3)
    assert pareto_front({"a": {"val/accuracy": 0.9}, "b": {"val/accuracy": 0.6}}, objectives) == ["a"]


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_dominates_and_holds_the_winner(points: list[tuple[float, float]]) -> None:
    figures = {i: {"val/nme": x, "val/mae": y} for i, (x, y) in enumerate(points)}
    front = pareto_front(figures, OBJECTIVES)
    assert front
    for one in front:
        for other in points:
            x, y = points[one]
            assert not (other[0] <= x and other[1] <= y and other != (x, y))
    ranked = candidates([trial(i, x, y) for i, (x, y) in enumerate(points)], OBJECTIVES)
    assert ranked[0].number in front


def test_fresh_seeds_are_fixed_and_distinct() -> None:
    seeds = fresh_seeds(0, 20)
    assert len(set(seeds)) == 20
    assert 0 not in seeds
    assert seeds[:3] == fresh_seeds(0, 3)


def test_trials_with_nan_figures_never_win() -> None:
    trials = [trial(0, 0.2, 0.5, "base"), trial(1, 0.1, 0.3), trial(2, 0.05, math.nan)]
    assert [one.number for one in candidates(trials, OBJECTIVES)] == [1, 0]


def test_where_ratios_say_nothing_the_first_objective_decides_for_all() -> None:
    trials = [trial(0, 3.0, 1.0, "base"), trial(1, 2.0, -1.0), trial(2, 1.0, 0.0)]
    assert [one.number for one in candidates(trials, OBJECTIVES)] == [2, 1, 0]
    order, rule = rank({one.number: one.best for one in trials}, [0], OBJECTIVES)
    assert order == [2, 1, 0]
    assert rule.startswith("best val/nme")


def test_a_candidate_with_a_failed_confirmation_takes_no_part() -> None:
    def confirmed(name: str, values: list[float], baseline: bool = True) -> Confirmed:
        runs = tuple(
            trial(i, value, value, name, "failed" if math.isnan(value) else "finished")
            for i, value in enumerate(values)
        )
        return Confirmed(name, baseline, runs[0], runs)

    ones = [confirmed("quick", [2, math.nan, 2]), confirmed("plain", [1.5] * 3), confirmed("trial 3", [1, 1, 1], False)]
    order, rule = ranking(ones, SearchSettings(objectives=OBJECTIVES))
    assert [one.name for one in order] == ["trial 3", "plain"]
    assert "mean ratio" in rule


def test_the_smallest_of_the_good_ones_may_be_the_winner() -> None:
    objectives = {"val/nme": "min", "cost/macs": "min"}
    figures = {
        "best": {"val/nme": 4.00, "cost/macs": 9e8},
        "small": {"val/nme": 4.07, "cost/macs": 2e8},
        "smallest": {"val/nme": 4.30, "cost/macs": 1e8},
        "worst": {"val/nme": 9.00, "cost/macs": 5e8},
    }
    order, words = rank(figures, [], objectives, Within(name="within", then="cost/macs", percent=2))
    assert order == ["small", "best", "smallest", "worst"]
    assert words == "best cost/macs of those within 2 % of the best val/nme"
    assert rank(figures, [], objectives, FirstObjective())[0] == ["best", "small", "smallest", "worst"]
    with pytest.raises(ValueError, match="an objective besides the first"):
        SearchSettings(objectives=objectives, winner=Within(name="within", then="cost/latency_ms"))


def test_a_failed_confirmation_run_is_in_the_file_with_what_became_of_it() -> None:
    def run(number: int, nme: float, status: str) -> TrialState:
        one = trial(number, nme, nme, "trial 3", status)
        one.config, one.phase, one.reason = {"seed": number}, "confirm", "" if status == "finished" else "it broke"
        one.test = {"nme": nme, "mae": nme} if status == "finished" else {}
        return one

    runs = (run(4, 1.0, "finished"), run(5, math.nan, "failed"))
    broken = Confirmed("trial 3", False, trial(3, 1.0, 1.0), runs)
    assert not broken.complete
    assert broken.why_incomplete == "failed (it broke)"
    trivial = {split: {"nme": 9.0, "mae": 9.0} for split in ("val", "test")}
    lines = confirmation_csv([broken], trivial).splitlines()
    assert lines[0] == "name,baseline,seed,trial,status,val/mae,val/nme,test/mae,test/nme"
    assert lines[1] == "trial 3,False,4,4,finished,1.0,1.0,1.0,1.0"
    assert lines[2].startswith("trial 3,False,5,5,failed,")
