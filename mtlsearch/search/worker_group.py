"""A trial as a worker group of Ray Train: its driver, which stands for it in Ray Tune, and what its workers do."""

from __future__ import annotations

import os
import threading
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

#: read by Ray Train in the driver. A controller that looks every 2 s costs a trial several times that.
TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
#: times that a group whose worker or node died is started again from its last epoch
MAX_FAILURES = 2
#: for the workers to return once they are told to stop
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class WorkerGroup:
    """What every trial is given: workers, CPUs and GPUs of each, a folder for Ray's own files."""

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


class TrialDriver(tune.Trainable):
    """Starts the worker group of a trial, hands on what it reports, and starts the next trial's when it is reused."""

    _job: TrialJob
    _thread: threading.Thread
    _error: Exception | None
    _failed: bool

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], group: WorkerGroup, exchange: ActorHandle
    ) -> None:
        """group, exchange: by tune.with_parameters."""
        os.environ.update(TRAIN_SETTINGS)
        self._group, self._exchange = group, exchange
        self._begin(config["job"])

    def step(self) -> dict[str, Any]:
        number = self._job.number
        result = ray.get(self._exchange.next.remote(number))
        if result is None:
            self._thread.join()
            result = {"failure": reason_of(self._error)} if self._error is not None else {RESULT_DUPLICATE: True}
            self._error = None
        elif "failure" in result:
            ray.get(self._exchange.stop.remote(number))
            self._failed = True
        return result

    def cleanup(self) -> None:
        ray.get(self._exchange.stop.remote(self._job.number))
        self._thread.join(_STOP_SECONDS)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        if self._thread.is_alive():
            return False
        self._begin(new_config["job"])
        return True

    def _begin(self, job: TrialJob) -> None:
        self._job, self._failed = job, False
        self._error = None
        ray.get(self._exchange.begin.remote(job.number))
        self._thread = threading.Thread(target=self._fit, args=(job,), daemon=True)
        self._thread.start()

    def _fit(self, job: TrialJob) -> None:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job, "exchange": self._exchange},
            scaling_config=self._group.scaling(),
            run_config=ray.train.RunConfig(
                name=f"trial-{job.number}-{ray.get_runtime_context().get_actor_id()}",
                storage_path=self._group.scratch,
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            if not self._failed:
                self._error = error
        finally:
            ray.get(self._exchange.close.remote(job.number))
