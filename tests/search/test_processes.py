"""Searches as processes of their own: what they listen on, side by side, killed, interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mtlsearch.search import read_trials
from mtlsearch.search.study.journal import read_journal
from mtlsearch.search.study.study import JOURNAL
from mtlsearch.training import load_record
from tests.processes import alive, descendants

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("at_root")]


#: of a Ray that was killed; they try for a minute to tell it of that, and hold nothing
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A search over the example space with a Ray of its own."""
    places = ["--results", str(folder / "results"), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command = [sys.executable, "-m", "mtlsearch.tune", "--space", "examples/own_space.yaml", "--address", "local"]
    return subprocess.Popen(
        [*command, *places, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )


@pytest.mark.usefixtures("shared_ray")
def test_nothing_of_ray_listens_beyond_loopback() -> None:
    """All listening sockets of this process and of what it started, from /proc."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc here")
    ours: set[str] = set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            for link in (Path("/proc") / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    ours.add(str(link.readlink()))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                listening.append(fields[1].rpartition(":")[0])
    assert listening, "Ray is running"
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= loopback


def test_two_searches_started_together_do_not_disturb_each_other(tmp_path: Path) -> None:
    """One results folder and one fresh MLflow database for both."""
    short = ["--set", "training.epochs=2", "--num-samples", "3", "--confirm-seeds", "1"]
    places = [[], ["--storage-path", str(tmp_path / "stored")]]
    running = [start(tmp_path, *short, "--seed", str(seed), *places[seed]) for seed in range(2)]
    for process, place in zip(running, places):
        screen, _ = process.communicate(timeout=240)
        assert process.returncode == 0, screen
        lines = screen.splitlines()[-2:]
        if place:
            assert lines[0].startswith(f"The study lies in file://{tmp_path}/stored/own_space-")
            assert lines[1].startswith(f"To bring it elsewhere: python -m mtlsearch.study fetch file://{tmp_path}")
        else:
            assert lines[1].startswith(f"The study lies in {tmp_path}/results/own_space-")
    folders = sorted((tmp_path / "results").iterdir())
    assert len(folders) == 2
    for folder in folders:
        trials = read_trials(folder)
        assert [trial.number for trial in trials if trial.phase == "search"] == [0, 1, 2]
        assert all(trial.status in ("finished", "stopped") for trial in trials)
        assert (folder / "best.yaml").exists()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mtlsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert sum(run.data.tags["kind"] == "study" for run in runs) == 2
    assert all(run.info.status in ("FINISHED", "KILLED") for run in runs)


def test_a_search_killed_without_warning_has_lost_nothing_finished(tmp_path: Path) -> None:
    process = start(tmp_path, "--name", "killed", "--num-samples", "40", "--set", "training.epochs=3")
    assert process.stdout is not None
    ended: list[int] = []
    for line in process.stdout:
        if line.startswith("trial ") and (": finished" in line or ": stopped" in line):
            ended.append(int(line.split()[1].rstrip(":")))
        if len(ended) == 4:
            break
    started = descendants(process.pid) - {process.pid}
    process.kill()
    process.wait()
    process.stdout.close()
    killed = time.monotonic()
    while (left := set(alive(started).values()) - AGENTS) and time.monotonic() < killed + 10:
        time.sleep(0.1)
    assert started and not left
    assert len(ended) == 4
    folder = tmp_path / "results" / "killed"
    trials = {trial.number: trial for trial in read_trials(folder)}
    for number in ended:
        assert trials[number].status in ("finished", "stopped")
        assert load_record(folder / "trials" / f"{number:04d}" / "record.yaml").history == trials[number].history
    assert (folder / "leaderboard.csv").exists()


def test_ctrl_c_ends_with_a_word_and_status_130(tmp_path: Path) -> None:
    process = start(tmp_path, "--num-samples", "60")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial "):
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted. What had finished is kept in" in rest


def test_a_node_dies_and_its_trial_goes_on_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.search.losing_a_node", str(tmp_path)]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    trials = read_trials(tmp_path / "results" / "losing")
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    for trial in trials:
        assert trial.status == "finished", trial.reason
        assert [row["epoch"] for row in trial.history] == [1, 2, 3, 4, 5, 6], "no gap and no epoch twice"
    stored = tmp_path / "stored" / "losing" / "journal.jsonl"
    assert stored.read_bytes() == (tmp_path / "results" / "losing" / "journal.jsonl").read_bytes()
    refused = next(line for line in ran.stdout.splitlines() if "cannot use memory://" in line)
    assert "it does not see what the driver wrote there" in refused
    assert len(refused.split(", of 2 nodes")[0].split(", ")) == 2, "each is named"
    assert refused.endswith("give a --storage-path that all of them reach")


def test_the_driver_of_worker_groups_dies_and_its_search_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.search.losing_a_driver", str(tmp_path)]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    journal = read_journal(tmp_path / "results" / "losing" / JOURNAL)
    assert [event["event"] for event in journal].count("resumed") == 1
    trials = read_trials(tmp_path / "results" / "losing")
    assert [trial.number for trial in trials] == [0, 1]
    for trial in trials:
        assert trial.status in ("finished", "stopped"), trial.reason
        assert [row["epoch"] for row in trial.history] == list(range(1, len(trial.history) + 1)), "no gap, none twice"
    assert len(trials[0].history) == 4, "it went on from where it was"


def test_trials_are_not_blamed_for_what_hands_on_their_results(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.search.losing_the_exchange", str(tmp_path)]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the process that hands on the trials' results has died" in " ".join(ran.stdout.split())
    assert ran.stdout.endswith("interrupted\n")
    trials = read_trials(tmp_path / "results" / "losing")
    assert [(trial.status, len(trial.history)) for trial in trials] == [("running", 1)]
