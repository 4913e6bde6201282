"""Trials inside reused Ray actors: the executor for one-worker trials, where start-up would outweigh training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mtlsearch.search.executors.resources import Resources
from mtlsearch.search.recorder import Recorder
from mtlsearch.search.trainable import TrialJob, run_trial

#: read by Tune when it is set up. Ray's own loggers would write a second, lossy record of every trial, and its
#: snapshots a second state beside the journal.
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def inline_trainable(config: dict[str, Any]) -> None:
    """A Tune function trainable."""
    run_trial(config["job"], tune.report)


class Inline:
    """Runs trials in a local Ray or on a cluster, one process each, `resources.concurrent` at a time."""

    def __init__(self, resources: Resources, scratch: Path) -> None:
        self.resources, self._scratch = resources, scratch

    def run(self, name: str, searcher: Searcher, scheduler: TrialScheduler, recorder: Recorder, trials: int) -> bool:
        """Runs up to `trials` trials; False if it was interrupted."""
        os.environ.update(_TUNE_SETTINGS)
        trainable = tune.with_resources(inline_trainable, {"cpu": self.resources.cpus})
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=trials,
                max_concurrent_trials=self.resources.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=name, storage_path=str(self._scratch), callbacks=[recorder], verbose=0
            ),
        )
        results = tuner.fit()
        return not any(result.metrics is None and result.error is None for result in results)


def start_ray(resources: Resources, address: str = "local") -> None:
    """A Ray of our own on loopback, or the cluster at `address`."""
    if address != "local":
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return
    ray.init(
        address="local",
        num_cpus=resources.total,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=True,
        _node_ip_address="127.0.0.1",
        object_store_memory=200_000_000,
    )


__all__ = ["Inline", "TrialJob", "start_ray"]
