"""Whole searches over the example problem, in the session's one Ray."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from mtlsearch.search import SearchOutcome, load_plan, read_trials, run_search
from mtlsearch.search.report.source import read_study
from mtlsearch.training import load_record, reproduce
from mtlsearch.training.checkpoint import load_weights
from mtlsearch.training.record import compare_histories
from mtlsearch.training.sample_scores import SCORES, load_scores

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("at_root", "shared_ray"),
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def search(folder: Path, *overrides: str, **settings: Any) -> tuple[SearchOutcome, str]:
    screen = io.StringIO()
    plan = load_plan("examples/own_space.yaml", overrides, settings)
    outcome = run_search(
        plan,
        results=folder / "results",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        console=Console(file=screen, width=200, markup=False),
    )
    return outcome, screen.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_ray: None) -> tuple[SearchOutcome, str, Path]:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        patch.syspath_prepend(str(Path(__file__).parents[2]))
        outcome, screen = search(
            folder,
            "training.epochs=4",
            num_samples=6,
            confirm={"top": 1, "seeds": 3},
            objectives={"val/frequency_error": "min", "val/phase_error": "min", "cost/parameters": "min"},
            winner="first",
            proxy={"full": {"training": {"epochs": 5}}, "spread": 1},
        )
    return outcome, screen, folder


def test_a_search_ends_with_a_confirmed_winner(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, screen, _ = finished
    trials = outcome.study.of_phase("search")
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].label == "own_problem"
    assert trials[0].config == outcome.study.plan.baselines[0].config.tree()
    assert trials[0].status == "finished", "a baseline is never stopped early"
    assert outcome.winner is not None
    assert not outcome.interrupted
    for one in outcome.confirmed:
        assert len(one.runs) == 3
        assert all(run.status == "finished" and set(run.test) >= {"frequency_error"} for run in one.runs)
    seeds = {tuple(run.config["seed"] for run in one.runs) for one in outcome.confirmed}
    assert len(seeds) == 1, "candidates are compared on the same seeds"
    assert "constant prediction" in screen
    assert "no winner is claimed beyond the search" in screen or len(outcome.confirmed) == 1


def test_costs_are_part_of_every_row_and_of_the_tables(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, screen, _ = finished
    for trial in outcome.study.of_phase("search"):
        width = trial.config["model"]["width"]
        expected = 32 * width + width + width * width + width + 3 * width + 3
        assert {row["cost/parameters"] for row in trial.history} == {expected}
        assert trial.best["cost/parameters"] == expected
    assert "cost/parameters" in screen


def test_winner_and_baseline_are_trained_at_full_size_too(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, screen, _ = finished
    at_full_size = outcome.study.of_phase("full")
    assert {trial.config["training"]["epochs"] for trial in at_full_size} == {5}
    names = [trial.label for trial in at_full_size]
    assert "own_problem" in names
    assert len(names) == len(set(names)) >= 2
    assert not any(trial.test for trial in at_full_size), "the test split is for the confirmation alone"
    assert "rank correlation with full size" in screen


def test_confirmation_runs_leave_the_figures_of_each_sample(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, _, _ = finished
    for trial in outcome.study.of_phase("confirm"):
        scores = load_scores(outcome.study.trial_folder(trial.number) / SCORES)
        assert scores["test", "phase_error"].metric == pytest.approx(trial.test["phase_error"], rel=1e-6)
        assert scores["val", "frequency_error"].metric == pytest.approx(trial.best["val/frequency_error"], rel=1e-6)


def test_early_stopping_stops_somebody_and_says_so(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, _, _ = finished
    stopped = [trial for trial in outcome.study.of_phase("search") if trial.status == "stopped"]
    assert stopped
    for trial in stopped:
        assert len(trial.history) < 4
        assert trial.reason == f"early stopping after epoch {len(trial.history)}"


def test_the_study_folder_holds_everything(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, _, _ = finished
    folder = outcome.study.folder
    assert outcome.winner is not None
    assert read_trials(folder) == list(outcome.study.trials.values()), "the journal alone tells it all"
    weights = load_weights(folder / "winner.safetensors")
    assert weights.config == outcome.winner.config
    assert weights.metrics["val/frequency_error"] == outcome.winner.best["val/frequency_error"]
    assert load_record(folder / "best.yaml").config == outcome.winner.config
    rows = list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert not list(folder.rglob("last.pt")), "what only a running trial needs is gone"
    confirmation = list(csv.DictReader((folder / "confirmation.csv").read_text().splitlines()))
    assert confirmation[-1]["name"] == "constant prediction"
    assert len(confirmation) == 3 * len(outcome.confirmed) + 1


def test_a_report_is_written_at_the_end(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, screen, _ = finished
    folder = outcome.study.folder
    assert f"report: {folder.absolute() / 'report.html'}" in screen
    record = read_study(folder)
    assert outcome.winner is not None
    assert record.winner is not None and record.winner.number == outcome.winner.number
    assert [one.name for one in record.ranking[0]] == [one.name for one in outcome.confirmed]
    assert record.data, "the journal says what data the numbers come from"
    assert record.wall_seconds > 0
    assert "conflict/frequency/phase" in outcome.study.trials[0].history[0], "the baseline's strategy is pcgrad"
    page = (folder / "report.html").read_text()
    assert f"Winner: {outcome.confirmed[0].name}" in page
    assert (folder / "figures" / "conflicts.png").exists()


def test_a_report_that_cannot_be_written_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Path:
        raise RuntimeError("no ink")

    monkeypatch.setattr("mtlsearch.search.report.write_report", failing)
    outcome, screen = search(tmp_path, "training.epochs=1", num_samples=1, confirm={"seeds": 0})
    assert outcome.winner is not None and (outcome.study.folder / "best.yaml").exists()
    assert "no report: RuntimeError: no ink" in screen
    assert f"python -m mtlsearch.report {outcome.study.folder}" in screen


def test_winner_and_stopped_trials_repeat_bit_for_bit(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, _, _ = finished
    assert outcome.winner is not None
    stopped = next(trial for trial in outcome.study.of_phase("search") if trial.status == "stopped")
    for number in (outcome.winner.number, stopped.number):
        record = load_record(outcome.study.trial_folder(number) / "record.yaml")
        again = reproduce(record)
        assert again.identical, again.lines()
        assert again.epochs == len(record.history)


def test_one_changed_value_is_named(finished: tuple[SearchOutcome, str, Path]) -> None:
    outcome, _, _ = finished
    path = outcome.study.folder / "best.yaml"
    edited = path.with_name("edited.yaml")
    text = path.read_text()
    lr = load_record(path).config["optimizer"]["lr"]
    edited.write_text(text.replace(f"    lr: {lr}", "    lr: 0.02", 1))
    again = reproduce(load_record(edited))
    assert not again.identical
    assert f"config differs from the recorded run: optimizer.lr: {lr} -> 0.02" in again.lines()


def test_mlflow_holds_the_study_as_parent_and_trials_as_children(
    finished: tuple[SearchOutcome, str, Path],
) -> None:
    outcome, _, folder = finished
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mtlsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parent = next(run for run in runs if run.data.tags["kind"] == "study")
    children = {int(run.data.tags["trial"]): run for run in runs if run.data.tags["kind"] == "trial"}
    assert len(children) == len(outcome.study.trials)
    for number, trial in outcome.study.trials.items():
        run = children[number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["status"] == trial.status
        assert run.data.params["strategy.name"] == trial.config["strategy"]["name"]
        history = client.get_metric_history(run.info.run_id, "val/frequency_error")
        assert [(m.step, m.value) for m in history] == [
            (int(row["epoch"]), row["val/frequency_error"]) for row in trial.history
        ], "no gaps, no duplicates, step = epoch"
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[trial.status]
        assert run.data.metrics["best/val/frequency_error"] == trial.best["val/frequency_error"]
    assert "record.yaml" in [item.path for item in client.list_artifacts(children[0].info.run_id)]
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "leaderboard.csv", "winner.safetensors", "space.yaml", "report.html"} <= artifacts
    assert parent.info.status == "FINISHED"


def test_a_run_id_is_enough_to_find_the_record(finished: tuple[SearchOutcome, str, Path]) -> None:
    from mtlsearch.errors import InputError
    from mtlsearch.tracking import fetch_artifact, is_run_id

    outcome, _, folder = finished
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mtlsearch")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id], "tags.trial = '0'")[0]
    assert is_run_id(run.info.run_id)
    record = load_record(fetch_artifact(uri, run.info.run_id, "record.yaml"))
    assert compare_histories(record.history, outcome.study.trials[0].history) == []
    with pytest.raises(InputError, match="is this the right store"):
        fetch_artifact(uri, "0" * 32, "record.yaml")


def test_a_trial_that_diverges_or_breaks_is_recorded_and_the_study_goes_on(tmp_path: Path) -> None:
    """One of the two optimizers draws learning rates from 1e6 up: its trials diverge."""
    outcome, screen = search(
        tmp_path,
        "training.epochs=2",
        "optimizer={choice: [{name: adamw, lr: 0.01}, {name: sgd, lr: {loguniform: [1.0e+6, 1.0e+8]}}]}",
        num_samples=6,
        sampler="random",
        confirm={"seeds": 0},
    )
    trials = outcome.study.of_phase("search")
    failed = [trial for trial in trials if trial.status == "failed"]
    assert failed
    assert all("became" in trial.reason and "learning rate" in trial.reason for trial in failed)
    assert outcome.winner is not None
    assert outcome.winner.config["optimizer"]["name"] == "adamw"
    assert "became" in screen
    assert outcome.confirmed == ()


def test_with_every_trial_failing_there_is_no_winner(tmp_path: Path) -> None:
    outcome, _ = search(tmp_path, "optimizer={name: sgd, lr: 1.0e+8}", num_samples=2, confirm={"seeds": 0})
    assert outcome.winner is None
    assert all(trial.status == "failed" for trial in outcome.study.trials.values())
    assert not math.isfinite(outcome.study.trials[0].best.get("val/frequency_error", math.nan))
    assert "2 of 2 trials failed" in (outcome.study.folder / "report.html").read_text()


def test_a_grid_visits_its_baseline_and_every_other_point_once(tmp_path: Path) -> None:
    space = "{lr: {grid: [0.01, 0.003]}}"
    outcome, _ = search(
        tmp_path,
        f"optimizer={space}",
        "strategy={grid: [{name: weighted_sum}, {name: pcgrad}, {name: mgda}]}",
        "model={width: 8}",
        "schedule={name: cosine}",
        "training.epochs=1",
        sampler="grid",
        early_stopping="none",
        start_with=[],
        confirm={"top": 1, "seeds": 0},
    )
    trials = outcome.study.of_phase("search")
    seen = [(trial.config["optimizer"]["lr"], trial.config["strategy"]["name"]) for trial in trials]
    assert len(seen) == len(set(seen)) == 6


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "sobol", "random"])
@pytest.mark.parametrize("early_stopping", ["mo_asha"])
def test_every_sampler_searches_a_conditional_space(tmp_path: Path, sampler: str, early_stopping: str) -> None:
    outcome, _ = search(
        tmp_path,
        "training.epochs=2",
        sampler={"name": sampler, **({"startup_trials": 2} if sampler == "gp" else {})},
        early_stopping={"name": early_stopping, "grace_epochs": 1, "reduction_factor": 2},
        num_samples=6,
        confirm={"seeds": 0},
    )
    trials = outcome.study.of_phase("search")
    assert len(trials) == 6 and trials[0].status == "finished"
    assert not [trial.reason for trial in trials if trial.status == "failed"]
    assert len({json.dumps(trial.config) for trial in trials}) == 6
