"""A study that was cut off anywhere goes on: nothing finished is lost, nothing is run twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from mtlsearch.errors import InputError
from mtlsearch.search import SearchOutcome, load_plan, read_trials, run_search
from mtlsearch.search.study.requests import Requests
from mtlsearch.search.study.study import JOURNAL, Study
from mtlsearch.search.study.watching import add_trial, stop_trial, watch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("at_root", "shared_ray"),
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {"num_samples": 4, "confirm": {"top": 1, "seeds": 1}, "sampler": "random"}


def run(folder: Path, plan: Any = None, resume: Path | None = None) -> tuple[SearchOutcome, str]:
    screen = io.StringIO()
    outcome = run_search(
        plan or load_plan("examples/own_space.yaml", ["training.epochs=3"], SETTINGS),
        results=folder / "results",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        console=Console(file=screen, width=200, markup=False),
        name=None if resume else "study",
        resume=resume,
    )
    return outcome, screen.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_ray: None) -> Path:
    """A study that ran to its end."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(str(ROOT))
        outcome, _ = run(folder)
        assert outcome.winner is not None
    return folder


def events_of(study: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study / JOURNAL).read_text().splitlines()]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_off_anywhere_it_goes_on(whole: Path, tmp_path: Path, share: float) -> None:
    """The journal cut in the middle of a line, as a power cut leaves it, at a share of its length."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "results" / "study"
    content = (study / JOURNAL).read_bytes()
    first_line = content.index(b"\n") + 1
    (study / JOURNAL).write_bytes(content[: max(first_line, int(share * len(content))) + 7])
    before = {trial.number: trial for trial in read_trials(study)}
    outcome, screen = run(tmp_path, load_plan(str(study / "space.yaml")), resume=study)
    assert not outcome.interrupted and outcome.winner is not None
    assert "resumed" in screen
    trials = {trial.number: trial for trial in read_trials(study)}
    ended = [event["number"] for event in events_of(study) if event["event"] == "end"]
    assert sorted(ended) == sorted(set(ended)) == sorted(trials), "each trial ends once"
    epochs = [(event["number"], event["row"]["epoch"]) for event in events_of(study) if event["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "no epoch is counted twice"
    for number, trial in before.items():
        assert trials[number].config == trial.config
        assert trials[number].history[: len(trial.history)] == trial.history
    assert sum(trial.phase == "search" for trial in trials.values()) == 4
    configs = [json.dumps(trial.config) for trial in trials.values() if trial.phase == "search"]
    assert len(set(configs)) == 4, "the sampler does not draw the same points again"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("mtlsearch").experiment_id], "tags.kind = 'trial'")
    numbers = [int(found.data.tags["trial"]) for found in runs]
    assert sorted(set(numbers)) == sorted(trials)


def test_more_trials_are_a_resumption_with_a_larger_number(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "results" / "study"
    plan = load_plan(str(study / "space.yaml"), search={"num_samples": 5, "confirm": {"seeds": 0}})
    add_trial(study, "0", ["optimizer.lr=0.05"])
    outcome, _ = run(tmp_path, plan, resume=study)
    searched = outcome.study.of_phase("search")
    assert len(searched) == 5
    assert searched[-1].config["optimizer"]["lr"] == 0.05, "what was asked for comes before what the sampler draws"


def test_a_space_may_grow_and_not_shrink(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "results" / "study"
    text = (study / "space.yaml").read_text()
    (study / "space.yaml").write_text(text.replace("- 65", "- 129"))
    Study.reopen(study, load_plan(str(study / "space.yaml"))).close()
    widths = [trial.config["model"]["width"] for trial in read_trials(study) if not trial.label]
    assert max(widths) > 33, "else this test asks nothing"
    (study / "space.yaml").write_text(text.replace("- 65", "- 33"))
    with pytest.raises(InputError, match=r"the space has changed, and not only grown: trial \d.* model\.width"):
        Study.reopen(study, load_plan(str(study / "space.yaml")))


def test_two_processes_cannot_run_one_study(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "results" / "study"
    plan = load_plan(str(study / "space.yaml"))
    first = Study.reopen(study, plan)
    assert watch(study).running
    with pytest.raises(InputError, match="being run by another process"):
        Study.reopen(study, plan)
    first.close()
    assert not watch(study).running


def test_requests_are_checked(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "results" / "study"
    with pytest.raises(InputError, match=r"optimizer\.lr = 5\.0 is outside"):
        add_trial(study, "1", ["optimizer.lr=5.0"])
    with pytest.raises(InputError, match="there is no trial 99"):
        stop_trial(study, 99)
    with pytest.raises(InputError, match="trial 0 has ended already: finished"):
        stop_trial(study, 0)
    assert "all 4 trials of the search have begun" in add_trial(study, "0", [])[-1]
    assert watch(study).lines()[-1].startswith("1 trials were asked for")


@pytest.mark.parametrize("moment", ["before a report", "search", "confirm", "report"])
def test_a_driver_that_is_killed_leaves_all_that_is_needed(moment: str, tmp_path: Path) -> None:
    """kill -9 of the driver in a Ray of its own: before the first epoch has ended, while trials of either phase train,
    while the report is written. The study then goes on here."""
    command = [
        sys.executable, "-m", "mtlsearch.tune", "--space", "examples/own_space.yaml", "--set", "training.epochs=40",
        "--num-samples", "2", "--confirm-seeds", "1", "--results", str(tmp_path / "results"), "--name", "study",
        "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--address", "local", "--max-concurrent-trials", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    study = tmp_path / "results" / "study"

    def reached() -> bool:
        if moment == "report":
            return (study / "figures").exists()
        trials = read_trials(study) if (study / JOURNAL).exists() else []
        if moment == "before a report":
            return bool(trials) and not any(trial.history for trial in trials)
        return any(trial.phase == moment and 2 <= len(trial.history) < 40 for trial in trials)

    deadline = time.monotonic() + 240
    while not reached():
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[0].decode()[-2000:]
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()  # type: ignore[union-attr]
    before = {trial.number: trial for trial in read_trials(study)}
    assert any(trial.status == "running" for trial in before.values()) or moment == "report"
    assert not (study / "report.html").exists()
    outcome, _ = run(tmp_path, load_plan(str(study / "space.yaml")), resume=study)
    assert outcome.winner is not None and not outcome.interrupted
    assert (study / "report.html").exists()
    trials = {trial.number: trial for trial in read_trials(study)}
    assert moment != "report" or trials == before, "nothing was left to train"
    for number, trial in before.items():
        assert trials[number].history[: len(trial.history)] == trial.history
        if trial.status != "running":
            assert trials[number] == trial
    epochs = [(event["number"], event["row"]["epoch"]) for event in events_of(study) if event["event"] == "epoch"]
    assert len(epochs) == len(set(epochs))


def test_a_trial_that_is_asked_to_stop_stops(tmp_path: Path) -> None:
    plan = load_plan(
        "examples/own_space.yaml",
        ["training.epochs=3"],
        {"num_samples": 2, "confirm": {"seeds": 0}, "early_stopping": "none"},
    )
    folder = tmp_path / "results" / "study"
    screen = Console(file=io.StringIO(), width=200)
    created = Study.create
    with pytest.MonkeyPatch.context() as patch:

        def create(*arguments: Any) -> Study:
            study = created(*arguments)
            Requests(study.folder).stop(1)
            return study

        patch.setattr(Study, "create", create)
        run_search(
            plan, results=folder.parent, tracking_uri=f"sqlite:///{tmp_path / 'm.db'}", name="study", console=screen
        )
    trials = read_trials(folder)
    assert trials[1].status == "stopped" and trials[1].reason == "stopped by hand after epoch 1"
    assert trials[0].status == "finished"
