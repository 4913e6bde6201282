"""What executors share: trials that Ray Tune starts, hears and stops."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mtlsearch.search.executors.resources import Resources, cluster_nodes
from mtlsearch.search.recorder import Recorder

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
#: times that a trial whose process died is started again from its last epoch
_MAX_FAILURES = 2


class ExecutorLost(RuntimeError):
    """What carries the trials has died, and no trial is to blame: those under way can go on later."""


class Executor(ABC):
    """Runs trials, `resources.concurrent` at a time."""

    def __init__(self, resources: Resources, scratch: Path) -> None:
        self.resources, self._scratch = resources, scratch

    def alone(self) -> Executor:
        """One that trains a trial at a time, which shares nothing: on whole GPUs, as far as there are."""
        other = copy(self)
        other.resources = self.resources.alone(cluster_nodes())
        return other

    @abstractmethod
    def _trials(self) -> AbstractContextManager[tuple[Any, Sequence[Callback]]]:
        """What Tune starts for each trial, with the resources of it, and who else is to hear of trials."""

    def run(self, name: str, searcher: Searcher, scheduler: TrialScheduler, recorder: Recorder, trials: int) -> None:
        """Runs up to `trials` trials. After Ctrl-C it returns with some still running by the study's account.

        Raises:
            ExecutorLost: it cannot go on; some trials are still running by the study's account.
        """
        os.environ.update(_TUNE_SETTINGS)
        with self._trials() as (trainable, callbacks):
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
                    name=name,
                    storage_path=str(self._scratch),
                    failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials keep their own
                    callbacks=[*callbacks, recorder],
                    verbose=0,
                ),
            )
            tuner.fit()
