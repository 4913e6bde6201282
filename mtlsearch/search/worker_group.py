"""A trial as a worker group of Ray Train: its driver, which stands for it in Ray Tune, and what its workers do."""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.actor import ActorHandle
from ray.train.torch import TorchTrainer
from ray.tune.result import RESULT_DUPLICATE

from mtlsearch.search.lost import reason_of
from mtlsearch.search.trainable import TrialJob, run_trial
from mtlsearch.training.storage import RemoteFolder

_TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a controller that looks every 2 s costs a trial several times that
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: times that a group whose worker or node died is started again from its last epoch
MAX_FAILURES = 2
#: for the workers to return once they are told to stop
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class WorkerGroup:
    """What every trial is given: workers, CPUs and GPUs of each, a folder for Ray's own files, a path or a URI."""

    workers: int
    cpus: int
    gpus: float
    scratch: str

    def scaling(self) -> ray.train.ScalingConfig:
        resources: dict[str, float] = {"CPU": self.cpus}
        if self.gpus:
            resources["GPU"] = self.gpus
        return ray.train.ScalingConfig(num_workers=self.workers, use_gpu=self.gpus > 0, resources_per_worker=resources)


def train_worker(config: dict[str, Any]) -> None:
    """What each worker of a group runs. Only the first tells of epochs; a failure is told by whom it strikes."""
    job: TrialJob = config["job"]
    exchange: ActorHandle = config["exchange"]
    if ray.get(exchange.stopped.remote(job.number)):  # it failed on some worker, and the group was started again
        return
    use_own_gpu()
    run_trial(job, lambda result: ray.get(exchange.send.remote(job.number, result)))


def use_own_gpu() -> None:
    """Makes the GPU that Ray gave this worker the current one: workers of a node see each other's."""
    if torch.cuda.is_available() and (device := ray.train.torch.get_device()).type == "cuda":
        torch.cuda.set_device(device)


def train_settings() -> dict[str, str]:
    """Variables that Ray Train reads in the process that starts a group."""
    if len(ray.nodes()) > 1:
        return _TRAIN_SETTINGS
    # it is a process for each trial that watches for nodes which are about to be taken away
    return {**_TRAIN_SETTINGS, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


class GroupRun:
    """The workers that train one job together, seen from where their results are wanted: in a process with
    `train_settings()`."""

    def __init__(self, group: WorkerGroup, exchange: ActorHandle, job: TrialJob) -> None:
        self._exchange, self._number = exchange, job.number
        self._error: Exception | None = None
        ray.get(exchange.begin.remote(job.number))
        scratch = RemoteFolder(group.scratch)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job, "exchange": exchange},
            scaling_config=group.scaling(),
            run_config=ray.train.RunConfig(
                name=f"run-{job.number}-{uuid.uuid4().hex}",
                storage_path=scratch.path,
                storage_filesystem=scratch.filesystem,
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any] | None:
        """The next result of the job, which goes on when the one after it is asked for; None when it has ended."""
        result: dict[str, Any] | None = ray.get(self._exchange.next.remote(self._number))
        if result is None:
            self._thread.join()
            if self._error is not None:
                result, self._error = {"failure": reason_of(self._error)}, None
        elif "failure" in result:
            ray.get(self._exchange.stop.remote(self._number))
        return result

    def stop(self) -> bool:
        """Has the workers end after the epoch that they are in; whether they have."""
        ray.get(self._exchange.stop.remote(self._number))
        self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            if not ray.get(self._exchange.stopped.remote(self._number)):
                self._error = error
        finally:
            ray.get(self._exchange.close.remote(self._number))


class TrialDriver(tune.Trainable):
    """Starts the worker group of a trial, hands on what it reports, and starts the next trial's when it is reused."""

    _run: GroupRun

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], group: WorkerGroup, exchange: ActorHandle
    ) -> None:
        """group, exchange: by tune.with_parameters."""
        os.environ.update(train_settings())
        self._group, self._exchange = group, exchange
        self._run = GroupRun(group, exchange, config["job"])

    def step(self) -> dict[str, Any]:
        return self._run.next() or {RESULT_DUPLICATE: True}

    def cleanup(self) -> None:
        self._run.stop()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if not self._run.stop():
            return False
        self._run = GroupRun(self._group, self._exchange, new_config["job"])
        return True
