"""A real MLflow server that goes away in the middle of a study and comes back."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console
from werkzeug.serving import make_server

from mtlsearch.search import load_plan, run_search
from mtlsearch.search.executors.resources import Demand
from mtlsearch.tracking import Tracker
from mtlsearch.tracking import writer as writer_module

EPOCHS = 30


class Server:
    """MLflow's own REST server on loopback, in a thread, over a sqlite file that outlives it."""

    def __init__(self) -> None:
        self._port = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        from mlflow.server import app  # reads where to keep runs from the environment

        self._server = make_server("127.0.0.1", self._port, app, threaded=True)
        self._port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in {
        "FILE_STORE": f"sqlite:///{tmp_path / 'server.db'}",
        "ARTIFACT_ROOT": "mlflow-artifacts:/",
        "ARTIFACT_DESTINATION": str(tmp_path / "artifacts"),
        "SERVE_ARTIFACTS": "true",
    }.items():
        monkeypatch.setenv(f"_MLFLOW_SERVER_{name}", value)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = Server()
    server.start()
    yield server
    server.stop()


def wait_for_epochs(results: Path, count: int) -> None:
    until = time.monotonic() + 60
    while sum(path.read_text().count('"event": "epoch"') for path in results.glob("*/journal.jsonl")) < count:
        assert time.monotonic() < until, "the search does not come so far"
        time.sleep(0.02)


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_study_whose_tracker_goes_away_and_comes_back_is_all_there(server: Server, tmp_path: Path) -> None:
    results, screen = tmp_path / "results", io.StringIO()

    def interfere() -> None:
        wait_for_epochs(results, EPOCHS // 3)
        server.stop()
        wait_for_epochs(results, 3 * EPOCHS // 2)  # a trial ends and another begins meanwhile
        server.start()

    interfering = threading.Thread(target=interfere, daemon=True)
    interfering.start()
    settings = {"start_with": [], "confirm": {"seeds": 0}, "report": False, "num_samples": 2, "early_stopping": "none"}
    study = run_search(
        load_plan("examples/own_space.yaml", [f"training.epochs={EPOCHS}"], settings),
        results=results,
        tracking_uri=server.uri,
        demand=Demand(concurrent=1),
        console=Console(file=screen, width=200, markup=False),
    ).study
    interfering.join(timeout=60)
    said = screen.getvalue()
    assert "tracker: not reachable" in said
    assert "tracker: it answers again" in said
    assert "could not be written" not in said

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("mtlsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert sorted(run.data.tags.get("trial", "study") for run in runs) == ["0", "1", "study"], (
        "none missing, none twice"
    )
    for run in runs:
        assert run.info.status == "FINISHED"
        if run.data.tags["kind"] == "trial":
            history = client.get_metric_history(run.info.run_id, "val/frequency_error")
            told = study.trials[int(run.data.tags["trial"])].history
            assert sorted((one.step, one.value) for one in history) == [
                (int(row["epoch"]), row["val/frequency_error"]) for row in told
            ]
            assert len(told) == EPOCHS


def test_a_run_whose_making_was_not_answered_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_RETRY_S", 0.02)
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", lambda _: None)
    parent = tracker.start_run("study", {"kind": "study"})
    create, answers = tracker._client.create_run, iter([False, True])

    def unanswered(*arguments: Any, **options: Any) -> Any:
        made = create(*arguments, **options)
        if not next(answers):
            raise ConnectionError("the answer was lost")
        return made

    monkeypatch.setattr(tracker._client, "create_run", unanswered)
    trials = [tracker.start_trial(f"trial {n}", {"kind": "trial", "trial": n}, parent) for n in range(2)]
    for number, trial in enumerate(trials):
        trial.log_row({"val/x": float(number)}, step=1)
    assert tracker.close() == 0
    runs = tracker._client.search_runs([tracker.experiment_id], "tags.kind = 'trial'")
    assert {run.info.run_id: run.data.metrics for run in runs} == {
        trial.run_id: {"val/x": float(number)} for number, trial in enumerate(trials)
    }
