"""Simulated searches: worked by hand on a few curves, by seed, and of studies on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mtlsearch.errors import InputError
from mtlsearch.search.early_stopping import SuccessiveHalving
from mtlsearch.search.early_stopping.rule import Never
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.plan.space import Space
from mtlsearch.search.report.source import read_study
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.orders import Listed, PointDistances, make_order
from mtlsearch.search.simulation.outcome import outcome_of
from mtlsearch.search.simulation.replay import concurrency, curves_of, replay_study
from mtlsearch.search.simulation.simulator import simulate
from mtlsearch.study import simulate as simulate_command
from tests.search.studies import EPOCHS, NAMES, Writer, large_study

A = {"val/a": "min"}
ONE = SearchSettings(objectives=A)  # type: ignore[arg-type]


def curve(number: int, *values: float, epochs: int = 4, **more: object) -> Curve:
    return Curve(number, {}, [{"val/a": value} for value in values], epochs, **more)  # type: ignore[arg-type]


def halving() -> SuccessiveHalving:
    """Rungs at epochs 1 and 2 of 4; the better half goes on."""
    return SuccessiveHalving(A, 1, 2, 4)


def test_one_worker_trains_one_trial_after_the_other() -> None:
    curves = [curve(0, 5, 4, 3, 2), curve(1, 6, 1, 1, 1), curve(2, 4, 5, 5, 5), curve(3, 3, 3, 3, 1)]
    runs = simulate(Listed(curves), halving(), A)
    # 1 is worse than 0 at the first rung, 2 worse than 0 at the second, 3 is the best of four and of three
    assert [run.status for run in runs] == ["finished", "stopped", "stopped", "finished"]
    assert [run.epochs for run in runs] == [4, 1, 2, 4]
    assert [run.spent for run in runs] == [4, 5, 7, 11]
    assert runs[3].best(A) == {"val/a": 1}


def test_two_workers_meet_on_the_clock() -> None:
    """A slow trial's second epoch comes after the fast one's fourth, whose place the third trial then takes."""
    slow = curve(0, 1, 1, 1, 1, seconds=[3.0] * 4)
    runs = simulate(Listed([slow, curve(1, 2, 2, 2, 2), curve(2, 3, 3, 3, 3)]), Never(), A, workers=2)
    assert [run.time for run in runs] == [12, 4, 8]
    assert [run.spent for run in runs] == [12, 5, 10]


def test_with_two_workers_the_rule_hears_epochs_as_they_happen() -> None:
    """One after the other the second is stopped at its first rung; together with the first it is there before it."""
    curves = [curve(0, 5, 4, 3, 2, seconds=[2.0] * 4), curve(1, 6, 5, 5, 5)]
    alone, together = (simulate(Listed(curves), halving(), A, workers=workers) for workers in (1, 2))
    assert [run.status for run in alone] == ["finished", "stopped"]
    assert [run.status for run in together] == ["finished", "finished"]


def test_baselines_are_heard_and_not_stopped() -> None:
    curves = [curve(0, 1, 1, 1, 1), curve(1, 9, 9, 9, 9, label="plain"), curve(2, 5, 5, 5, 5)]
    runs = simulate(Listed(curves), halving(), A)
    # the third is second of three, of which two may go on; at the second rung likewise
    assert [run.status for run in runs] == ["finished", "finished", "finished"]


def test_a_budget_of_epochs_or_of_trials() -> None:
    curves = [curve(number, 1, 1, 1, 1) for number in range(5)]
    runs = simulate(Listed(curves), Never(), A, workers=2, budget=10)
    assert sum(run.epochs for run in runs) == 10
    assert [run.status for run in runs] == ["finished", "finished", "running", "running"]
    assert len(simulate(Listed(curves), Never(), A, num_samples=3)) == 3


def test_what_is_censored_ends_where_it_is_not_known_and_wins_nothing() -> None:
    curves = [curve(0, 5, 4, 3, 2), curve(1, 4, 0.5), curve(2, 9), curve(3, 3, failed=True)]
    runs = simulate(Listed(curves), halving(), A)
    assert [run.status for run in runs] == ["finished", "unknown", "stopped", "failed"]
    assert [run.epochs for run in runs] == [4, 2, 1, 2]
    outcome = outcome_of(runs, curves, ONE)
    assert (outcome.found, outcome.figures) == (0, {"val/a": 2})
    assert (outcome.epochs, outcome.epochs_at_most, outcome.epochs_saved) == (9, 11, 3)
    assert (outcome.stopped_unknown, outcome.better_stopped) == (1, 0)


def test_what_was_stopped_and_better_is_counted() -> None:
    curves = [curve(0, 5, 4, 3, 2), curve(1, 6, 1, 1, 1), curve(2, 7, 7, 7, 7)]
    outcome = outcome_of(simulate(Listed(curves), halving(), A), curves, ONE)
    assert (outcome.finished, outcome.stopped, outcome.found) == (1, 1 + 1, 0)
    assert (outcome.better_stopped, outcome.best_stopped) == (1, 1)


def test_the_best_is_of_the_stage_that_was_reached() -> None:
    staged = curve(0, 1, 2, 5, 4, stage_ends=(2,))
    assert [staged.best(epochs, A) for epochs in (1, 2, 3, 4)] == [{"val/a": value} for value in (1, 1, 5, 4)]
    assert curve(0, 1, failed=True, stage_ends=(1,)).best(2, A) == {"val/a": 1}, "it failed before the next stage's end"
    assert curve(0, failed=True).best(1, A) == {}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "waves"
    large_study(folder, 60)
    return folder


def settings(seed: int, sampler: str) -> SearchSettings:
    return SearchSettings.model_validate({"objectives": dict.fromkeys(NAMES, "min"), "sampler": sampler, "seed": seed})


@pytest.mark.parametrize("sampler", ["random", "tpe", "sobol", "nsga2"])
def test_no_curve_is_taken_twice_and_a_seed_repeats(study: Path, sampler: str) -> None:
    record = read_study(study)
    curves = curves_of(record)

    def tried(seed: int) -> list[int]:
        order = make_order(curves, record.space, settings(seed, sampler))
        return [run.curve.number for run in simulate(order, Never(), record.objectives, workers=3)]

    first = tried(0)
    assert sorted(first) == [one.number for one in curves]
    assert first[0] == 0, "the baseline comes first"
    assert first == tried(0) != tried(1)


def test_the_nearest_curve_is_taken() -> None:
    tree = {"lr": {"loguniform": [0.001, 0.1]}, "kind": {"choice": [{"name": "a", "x": {"uniform": [0, 2]}}, "b"]}}
    points = [{"lr": 0.01, "kind": "a", "kind.a.x": 0.5}, {"lr": 0.1, "kind": "b"}, {"lr": 0.001, "kind": "b"}]
    distances = PointDistances(Space({}, tree), points)
    # half the range of lr, on its logarithm; another option, and the parameter that hangs on it
    np.testing.assert_allclose(distances.to({"lr": 0.01, "kind": "b"}), [2, 0.5, 0.5])
    np.testing.assert_allclose(distances.to({"lr": 0.1, "kind": "a", "kind.a.x": 1.5}), [1, 2, 3])


def test_a_study_of_whole_trials_finds_again_what_it_found(study: Path) -> None:
    replay = replay_study(study, early_stopping="none", workers=2)
    (simulated,) = replay.simulated
    assert simulated.found == replay.own.found
    assert simulated.unknown == replay.own.stopped == replay.censored > 0
    assert simulated.epochs == replay.own.epochs
    assert simulated.epochs_at_most == replay.own.epochs + replay.own.epochs_saved
    assert simulated.failed == replay.own.failed > 0


def test_other_samplers_are_simulated_once_a_seed(study: Path) -> None:
    replay = replay_study(study, early_stopping="asha", sampler="tpe", budget=60, seeds=3)
    assert len(replay.simulated) == 3
    assert all(outcome.epochs == 60 for outcome in replay.simulated)
    assert len({outcome.begun for outcome in replay.simulated} | {outcome.stopped for outcome in replay.simulated}) > 1


def test_trials_at_one_time_are_counted(tmp_path: Path) -> None:
    study = Writer(tmp_path / "study")
    study.trial([(1.0, 1.0)] * EPOCHS)
    study.trial([(2.0, 2.0)] * EPOCHS)
    assert concurrency(read_study(study.folder)) == 1
    with pytest.raises(InputError, match="no trial with an epoch"):
        replay_study(Writer(tmp_path / "empty").folder)


def test_the_command_says_what_would_have_been(study: Path) -> None:
    app = typer.Typer()
    app.command()(simulate_command)

    def answer(*options: str) -> str:
        result = CliRunner().invoke(app, [str(study), *options], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    text = answer("--early-stopping", "{name: asha, grace_epochs: 2}")
    assert "the end is not known" in text and "stopped, better than what was found" in text
    parsed = json.loads(answer("--sampler", "random", "--seeds", "2", "--json"))
    assert [one["begun"] for one in parsed["simulated"]] == [60, 60]
    for options, words in {
        ("--early-stopping", "bogus"): "'bogus' is not one of asha",
        ("--early-stopping", "["): r"--early-stopping \[",
        ("--sampler", "grid"): "leave --sampler out",
        ("--num-samples", "99"): "only the study's own trials",
    }.items():
        with pytest.raises(InputError, match=words):
            answer(*options)
