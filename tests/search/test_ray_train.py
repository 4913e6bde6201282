"""Trials as worker groups: the figures of one process, whoever dies, and nothing held afterwards."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util import placement_group_table
from rich.console import Console

from examples.own_problem import Waves
from mtlsearch.errors import InputError
from mtlsearch.search import SearchOutcome, load_plan, run_search
from mtlsearch.search.executors.one_run import train_in_group
from mtlsearch.search.executors.resources import Demand, Node, plan_trials
from mtlsearch.training import load_record, load_run_config, run_training
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.storage import RemoteFolder
from mtlsearch.training.workers import Workers

EPOCHS = 3
#: a trial that runs to its end, and one that is stopped
TWO = [
    "model={width: 16}",
    "strategy={name: pcgrad}",
    "schedule={name: cosine}",
    "optimizer={lr: {grid: [0.01, 1.0e-5]}}",
]
SETTINGS = {
    "start_with": [],
    "confirm": {"seeds": 0},
    "report": False,
    "sampler": "grid",
    "early_stopping": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
}


class Mortal(Waves):
    """Kills the second of its workers in the middle of the second epoch, once in a test session."""

    def prepare(self, progress: Any = None) -> None:
        super().prepare(progress)
        self.batches = 0

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches += 1
        killed = Path(os.environ["MTLSEARCH_CACHE"], "killed")
        if self.batches == 18 and Workers().rank == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(indices, generator)


def search(
    folder: Path, demand: Demand, *overrides: str, storage: RemoteFolder | None = None, **settings: Any
) -> SearchOutcome:
    return run_search(
        load_plan("examples/own_space.yaml", [f"training.epochs={EPOCHS}", *overrides], {**SETTINGS, **settings}),
        results=folder / "results",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        demand=demand,
        storage=storage,
        address="local" if storage is None else "auto",  # for Ray's own files to be at the storage
        console=Console(file=io.StringIO(), width=200, markup=False),
    )


def figures(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in history]


def nothing_is_held() -> bool:
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return not groups and ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_finds_what_a_process_finds_and_holds_nothing_after_its_trial_was_stopped(tmp_path: Path) -> None:
    grouped = search(tmp_path, Demand("ray_train", concurrent=1), *TWO).study
    ended = time.monotonic()
    while not nothing_is_held() and time.monotonic() < ended + 10:
        time.sleep(0.1)
    assert nothing_is_held()
    alone = search(tmp_path, Demand(concurrent=1, cpus_per_trial=1), *TWO).study
    assert sorted(trial.status for trial in alone.trials.values()) == ["finished", "stopped"]
    for number, trial in alone.trials.items():
        same = grouped.trials[number]
        assert (same.config, same.status, same.reason) == (trial.config, trial.status, trial.reason)
        assert figures(same.history) == figures(trial.history)
        assert load_record(grouped.trial_folder(number) / "record.yaml").about["status"] == trial.status


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_of_which_one_is_killed_find_what_one_process_finds(tmp_path: Path, object_store: str) -> None:
    """And they meet at the storage alone, in folders of their own."""
    overrides = [*TWO, "problem=tests.search.test_ray_train:Mortal", "optimizer={lr: 0.01}"]
    storage = RemoteFolder(object_store.replace("s3://", "s3://test:test@")).join("groups")
    demand = Demand(workers=2, concurrent=1)
    study = search(tmp_path, demand, *overrides, storage=storage, sampler="tpe", num_samples=1).study
    assert Path(os.environ["MTLSEARCH_CACHE"], "killed").exists()
    trial = study.trials[0]
    assert trial.status == "finished", trial.reason
    assert [row["epoch"] for row in trial.history] == [1, 2, 3], "no gap and no epoch twice"
    stored = {name for name in storage.join(study.folder.name).files() if not name.endswith((".yaml", ".csv"))}
    assert stored == {"journal.jsonl", "winner.safetensors", "trials/0000/best.safetensors"}, "and nothing of Ray's"
    assert trial.environment["workers"] == 2
    alone = run_training(parse_run_config(trial.config, "the trial"), threads=1).result.history
    for row, same in zip(figures(trial.history), figures(alone), strict=True):
        assert row == pytest.approx(same, rel=1e-4, abs=1e-5)


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_continue_a_training_of_one(tmp_path: Path) -> None:
    config = load_run_config("examples/own_problem.yaml", ["training.epochs=3"])
    whole = run_training(config, threads=1).result.history
    run_training(config, threads=1, directory=tmp_path, stop_after=1)
    rows: list[dict[str, float]] = []
    record = train_in_group(config, workers=2, threads=1, directory=tmp_path, report=rows.append)
    assert [row["epoch"] for row in rows] == [2, 3], "what was trained before is not told again"
    assert load_record(tmp_path / "record.yaml").history == record.history
    assert record.environment["workers"] == 2
    for row, same in zip(figures(record.history), figures(whole), strict=True):
        assert row == pytest.approx(same, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("demand", "nodes", "complaint"),
    [
        (Demand(workers=2, gpus_per_worker=1), [Node(8, 1)], "a trial needs 2 GPUs and the cluster has 1"),
        (Demand(gpus_per_worker=0.5), [Node(8, 0), Node(8, 0)], "needs 0.5 GPUs and the cluster of 2 nodes has 0"),
        (Demand(workers=3, gpus_per_worker=0.6), [Node(8, 2)], "2 fit on the nodes"),
        (Demand(workers=2, cpus_per_worker=3), [Node(4, 0)], "a trial needs 6 CPUs and the cluster has 4"),
        (Demand(workers=2, cpus_per_worker=3), [Node(4, 0), Node(2, 0)], "1 fit on the nodes"),
        (Demand(gpus_per_worker=1.5), [Node(4, 4)], "whole number or a fraction"),
        (Demand("inline", workers=2), [Node(4, 0)], "executor inline trains each trial in one process"),
        (Demand("ray_train", cpus_per_trial=2), [Node(4, 0)], "give --cpus-per-worker"),
        (Demand(cpus_per_trial=4), [Node(2, 0), Node(3, 0)], "needs 4 CPUs and the largest node of the cluster has 3"),
    ],
)
def test_what_can_never_fit_is_refused(demand: Demand, nodes: list[Node], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan_trials(demand, 8, nodes)


@pytest.mark.parametrize(
    ("demand", "nodes", "executor", "concurrent", "cpus"),
    [
        (Demand(), [Node(2, 0)], "inline", 2, 1),
        (Demand(), [Node(4, 0)] * 3, "inline", 4, 3),  # a quarter of the trials, so that the sampler learns
        (Demand(), [Node(8, 2)], "ray_train", 2, 4),
        (Demand(gpus_per_worker=0.25), [Node(8, 2)], "ray_train", 8, 1),
        (Demand(workers=2, gpus_per_worker=1), [Node(32, 4)] * 2, "ray_train", 4, 4),
        (Demand(workers=2), [Node(8, 0)], "ray_train", 4, 1),
        (Demand(workers=2, concurrent=3), [Node(8, 0)], "ray_train", 3, 1),
    ],
)
def test_trials_fill_the_nodes(demand: Demand, nodes: list[Node], executor: str, concurrent: int, cpus: int) -> None:
    planned = plan_trials(demand, 16, nodes)
    assert (planned.executor, planned.concurrent, planned.cpus) == (executor, concurrent, cpus)


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray")
def test_a_search_that_can_never_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a trial needs 64 CPUs"):
        search(tmp_path, Demand(workers=64), *TWO)
    assert not list((tmp_path / "results").glob("*"))
