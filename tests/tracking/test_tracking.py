"""The tracker's writer, and the store: slow, absent, refusing, damaged."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import RunData

from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.study.study import Study
from mtlsearch.search.tracked import TrackedStudy
from mtlsearch.tracking import Tracker, fetch_artifact, resolve_uri
from mtlsearch.tracking import writer as writer_module
from mtlsearch.tracking.writer import Writer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_RETRY_S", 0.02)


def test_a_tracker_that_is_down_for_a_while_loses_nothing_and_holds_up_nobody() -> None:
    said: list[str] = []
    written: list[int] = []
    up = threading.Event()

    def write(number: int) -> None:
        if not up.is_set():
            raise ConnectionError("nobody there")
        written.append(number)

    writer = Writer(said.append)
    started = time.monotonic()
    for number in range(20):
        writer.put(lambda number=number: write(number))
    assert time.monotonic() - started < 0.1, "the caller does not wait"
    time.sleep(0.1)
    up.set()
    assert writer.close() == 0
    assert written == list(range(20)), "all of it, in order"
    assert [line.split(" (")[0] for line in said] == [
        "tracker: not reachable",
        "tracker: it answers again; what was held back is being written",
    ]


def test_a_slow_tracker_is_waited_for_as_long_as_it_writes() -> None:
    written: list[int] = []
    writer = Writer(print)
    for number in range(20):
        writer.put(lambda number=number: (time.sleep(0.03), written.append(number)))
    assert writer.close(timeout_s=0.1) == 0
    assert written == list(range(20)), "0.6 s of writing, with a patience of 0.1 s for each"


def test_one_entry_that_is_refused_does_not_hold_back_the_others() -> None:
    class Refusal(Exception):
        error_code = "INVALID_PARAMETER_VALUE"

    written: list[int] = []

    def refuse() -> None:
        raise Refusal("no such name")

    said: list[str] = []
    writer = Writer(said.append)
    writer.put(refuse)
    writer.put(lambda: written.append(1))
    assert writer.close() == 1
    assert written == [1]
    assert "refused (no such name)" in said[0]


def test_closing_on_a_dead_tracker_ends_in_time_and_counts_what_is_lost() -> None:
    def dead() -> None:
        raise ConnectionError("nobody there")

    writer = Writer(lambda _: None)
    for _ in range(5):
        writer.put(dead)
    started = time.monotonic()
    assert writer.close(timeout_s=0.2) == 5
    assert time.monotonic() - started < 2


def test_names_that_mlflow_refuses_cost_their_batch_alone(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", said.append)
    run = tracker.start_run("run", {"kind": "training"})
    run.log_row({"epoch": 1.0, "val/top@1": 0.5}, step=1)
    run.log_row({"epoch": 2.0, "val/nme": 9.0}, step=2)
    run.end()
    assert tracker.close() == 1
    assert MlflowClient(tracker.uri).get_run(run.run_id).data.metrics == {"val/nme": 9.0}


def test_ten_threads_that_open_a_fresh_store_together_get_one_experiment(tmp_path: Path) -> None:
    found: list[str] = []

    def open_it() -> None:
        tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", lambda _: None)
        found.append(tracker.experiment_id)
        tracker.close()

    threads = [threading.Thread(target=open_it) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(set(found)) == 1


def test_a_store_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(InputError, match=r"cannot be opened .*--tracking-uri"):
        Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", lambda _: None)
    with pytest.raises(InputError, match="there is no MLflow store"):
        fetch_artifact(f"sqlite:///{tmp_path / 'none.db'}", "0" * 32, "record.yaml")
    assert not (tmp_path / "none.db").exists()


def test_a_relative_store_names_the_same_file_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert resolve_uri("sqlite:////absolute/db") == "sqlite:////absolute/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve_uri(None) == "http://127.0.0.1:5000"


def test_a_study_whose_winner_changes_shows_the_new_one_alone(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", lambda _: None)
    plan = load_plan("quick")
    config = plan.baselines[0].config.tree()
    winners = [
        {**config, "schedule": {"name": "cosine"}},
        {**config, "schedule": {"name": "onecycle", "pct_start": 0.3}},
    ]
    seen: list[RunData] = []
    study = Study.create(tmp_path / "results", plan, "study")
    for winner in (*winners, winners[0]):
        tracked = TrackedStudy(tracker, study)
        trial = study.add_trial("search", "", winner, {})
        study.end_trial(trial.number, "finished")
        tracked.finish(trial, interrupted=False)
        tracker.write(lambda client, run=tracked.parent: seen.append(client.get_run(run.run_id).data))
    study.close()
    assert tracker.close() == 0, "MLflow refused nothing"
    assert [one.tags["winner"] for one in seen] == ["0", "1", "2"]
    assert [one.tags.get("winner.schedule.pct_start") for one in seen] == [None, "0.3", None]
    assert seen[2].tags["winner.training.epochs"] == str(config["training"]["epochs"])
    assert seen[2].params == {}
