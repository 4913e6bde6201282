"""A trial as a worker group of Ray Train: its driver, which stands for it in Ray Tune, and what its workers do."""

from __future__ import annotations

import os
import pickle
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
from ray.exceptions import RayActorError
from ray.tune.result import RESULT_DUPLICATE

from mtlsearch.search.trials.group_trainer import GroupTrainer, end_group
from mtlsearch.search.trials.lost import killed_for_memory, reason_of
from mtlsearch.search.trials.trainable import TrialJob, run_trial
from mtlsearch.training.storage import RemoteFolder
from mtlsearch.training.workers import Workers

_TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a controller that looks every 2 s costs a group several times that
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: times that a group whose worker or node died is started again from its last epoch
MAX_FAILURES = 2
#: for workers that were told to stop in the middle of an epoch, and for those that have come to the end of a job and
#: may still be writing what they have
_STOP_SECONDS, _END_SECONDS = 3.0, 20.0


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
    """What each worker of a group runs: one job after the other, until there will be none.

    Only the first tells of epochs; a failure is told by whom it strikes.
    """
    exchange, group = config["exchange"], config["group"]
    use_own_gpu()
    workers = Workers()
    place = ray.get(exchange.join.remote(group, workers.rank, ray.util.get_current_placement_group()))
    while (job := ray.get(exchange.job.remote(group, workers.rank, place))) is not None:
        _train_job(pickle.loads(job), exchange, workers)
        place += 1


def _train_job(job: TrialJob, exchange: ActorHandle, workers: Workers) -> None:
    """Trains a job; one that is over already is skipped: the group was started again when it had failed."""
    if workers.from_first(lambda: ray.get(exchange.is_over.remote(job.number))):
        return
    run_trial(job, lambda result: ray.get(exchange.send.remote(job.number, result)))
    if workers.first:
        ray.get(exchange.close.remote(job.number))


def use_own_gpu() -> None:
    """Makes the GPU that Ray gave this worker the current one: workers of a node see each other's."""
    if torch.cuda.is_available() and (device := ray.train.torch.get_device()).type == "cuda":
        torch.cuda.set_device(device)


def train_settings() -> dict[str, str]:
    """Variables that Ray Train reads in the process that starts a group."""
    if len(ray.nodes()) > 1:
        return _TRAIN_SETTINGS
    # it is a process for each group that watches for nodes which are about to be taken away
    return {**_TRAIN_SETTINGS, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


class GroupRun:
    """The workers that train jobs together, one after the other, seen from where the results are wanted: in a process
    with `train_settings()`."""

    def __init__(self, group: WorkerGroup, exchange: ActorHandle, job: TrialJob) -> None:
        self._exchange, self._workers, self._number = exchange, group.workers, job.number
        self._name = f"group-{uuid.uuid4().hex}"
        self._error: Exception | None = None
        self._sound = True
        self.lost = False
        """whether what starts and ends the workers has died: no fault of the job"""
        ray.get(exchange.give.remote(self._name, job.number, pickle.dumps(job)))
        scratch = RemoteFolder(group.scratch)
        trainer = GroupTrainer(
            train_worker,
            train_loop_config={"group": self._name, "exchange": exchange},
            scaling_config=group.scaling(),
            run_config=ray.train.RunConfig(
                name=self._name,
                storage_path=scratch.path,
                storage_filesystem=scratch.filesystem,
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
            group=self._name,
            exchange=exchange,
        )
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any] | None:
        """The next result of the job, which goes on when the one after it is asked for; None when it has ended."""
        result: dict[str, Any] | None = ray.get(self._exchange.next.remote(self._number))
        if result is None and self._error is not None:
            result, self._error = _failure(self._error), None
        if result is not None and "failure" in result:
            self._sound = result["clean"]
            ray.get(self._exchange.stop.remote(self._number))
        return result

    def give(self, job: TrialJob) -> bool:
        """Has the workers train another job after this one, which ends after the epoch that it is in. Returns whether
        they will: not those of whom one has failed or was started again, who have used up chances of the next job."""
        if not self._sound:
            return False
        ray.get(self._exchange.stop.remote(self._number))
        idle = self._exchange.is_idle.remote(self._name, self._workers)
        ready, _ = ray.wait([idle], timeout=_END_SECONDS)
        if not ready or not ray.get(idle):
            return False
        if not ray.get(self._exchange.give.remote(self._name, job.number, pickle.dumps(job))):
            return False
        self._number = job.number
        return True

    def stop(self) -> bool:
        """Ends the group, and waits for its workers to come to their end; whether they have."""
        seconds = _END_SECONDS if ray.get(self._exchange.is_over.remote(self._number)) else _STOP_SECONDS
        if not self._sound and self._workers > 1:
            seconds = 0.0  # Ray starts it again, or a worker waits for one that failed
        ray.get([self._exchange.stop.remote(self._number), self._exchange.close_group.remote(self._name)])
        self._thread.join(seconds)
        if self._thread.is_alive() and (controller := ray.get(self._exchange.controller.remote(self._name))):
            end_group(controller, _STOP_SECONDS)
            self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def _fit(self, trainer: GroupTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self._error, self.lost = error, isinstance(error, RayActorError)
        finally:
            ray.get(self._exchange.ended.remote(self._name))


def _failure(error: Exception) -> dict[str, Any]:
    return {"failure": reason_of(error), "out_of_memory": killed_for_memory(error), "clean": False}


class TrialDriver(tune.Trainable):
    """Stands for a trial: hands on what its worker group reports; the group trains the next trial too."""

    _run: GroupRun

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], group: WorkerGroup, exchange: ActorHandle
    ) -> None:
        """group, exchange: by tune.with_parameters."""
        os.environ.update(train_settings())
        self._group, self._exchange = group, exchange
        self._run = GroupRun(group, exchange, config["job"])

    def step(self) -> dict[str, Any]:
        result = self._run.next()
        if result is not None and "failure" in result and self._run.lost:
            raise RuntimeError(result["failure"])  # Tune starts the trial again
        return result or {RESULT_DUPLICATE: True}

    def cleanup(self) -> None:
        self._run.stop()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if self._run.give(new_config["job"]):
            return True
        if not self._run.stop():
            raise RuntimeError("the group of the trial before does not end")  # Tune tries again in another process
        self._run = GroupRun(self._group, self._exchange, new_config["job"])
        return True
