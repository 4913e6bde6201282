"""Trials inside reused Ray actors: the executor for one-worker trials, where start-up would outweigh training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mtlsearch.errors import InputError
from mtlsearch.search.executors.resources import Resources
from mtlsearch.search.recorder import Recorder
from mtlsearch.search.trainable import run_trial

#: read by Tune when it is set up. Ray's own loggers would write a second, lossy record of every trial, and its
#: snapshots a second state beside the journal.
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
#: trials pass numbers, not arrays
_OBJECT_STORE_BYTES = 200_000_000


def inline_trainable(config: dict[str, Any]) -> None:
    """A Tune function trainable."""
    run_trial(config["job"], tune.report)


class Inline:
    """Runs trials in a local Ray or on a cluster, one process each, `resources.concurrent` at a time."""

    def __init__(self, resources: Resources, scratch: Path) -> None:
        self.resources, self._scratch = resources, scratch

    def run(self, name: str, searcher: Searcher, scheduler: TrialScheduler, recorder: Recorder, trials: int) -> None:
        """Runs up to `trials` trials. After Ctrl-C it returns with some still running by the study's account."""
        os.environ.update(_TUNE_SETTINGS)
        trainable = tune.with_resources(inline_trainable, {"cpu": self.resources.cpus, "gpu": self.resources.gpus})
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=trials,
                max_concurrent_trials=self.resources.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name=name, storage_path=str(self._scratch), callbacks=[recorder], verbose=0),
        )
        tuner.fit()


@contextmanager
def running_ray(resources: Resources, address: str = "local") -> Iterator[None]:
    """The Ray that this process is connected to already, or the cluster at `address`, or one of our own on loopback.

    What was started or connected to here is left at the end of the scope.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as scope:
        if address == "local":
            scope.enter_context(_on_loopback())
            options: dict[str, Any] = {
                "num_cpus": resources.total,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
            ray.init(address="local", object_store_memory=_OBJECT_STORE_BYTES, **options, **quiet)
        else:
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(f"Ray at {address!r} does not answer ({reason}); give --address local") from None
        scope.callback(ray.shutdown)
        yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray started within the scope listens on 127.0.0.1 alone.

    Ray takes a given 127.0.0.1 for "any interface" unless clusters are disabled, as they are by default on macOS and
    Windows. It reads the variable once, at import, so that this process needs the constant too.
    """
    variable = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    environment, constant = os.environ.get(variable), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[variable] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        if environment is None:
            del os.environ[variable]
        else:
            os.environ[variable] = environment
