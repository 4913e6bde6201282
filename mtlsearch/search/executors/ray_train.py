"""Trials as worker groups of Ray Train: several workers, GPUs, recovery of workers and nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial

from mtlsearch.search.executors.executor import Executor, ExecutorLost
from mtlsearch.search.executors.resources import Resources
from mtlsearch.search.trials.exchange import ON_HEAD, running_exchange
from mtlsearch.search.trials.worker_group import TrialDriver, WorkerGroup
from mtlsearch.training.storage import RemoteFolder


class RayTrain(Executor):
    """Runs each trial in `resources.workers` processes that train it together, and another one after it.

    A group whose worker or node dies is started again and goes on from the trial's last epoch.
    """

    def __init__(self, resources: Resources, scratch: Path, shared: RemoteFolder) -> None:
        super().__init__(resources, scratch)
        self._shared = shared

    @contextmanager
    def _trials(self) -> Iterator[tuple[Any, Sequence[Callback]]]:
        resources = self.resources
        group = WorkerGroup(resources.workers, resources.cpus, resources.gpus, self._shared.uri)
        with running_exchange() as exchange:
            driver = tune.with_parameters(TrialDriver, group=group, exchange=exchange)
            watching = _Watching(exchange)
            try:
                yield tune.with_resources(driver, {"cpu": 0, **ON_HEAD}), [watching]
            except Exception:  # Tune's own, about whatever its callbacks raise
                if watching.lost:
                    raise ExecutorLost("the process that hands on the trials' results has died") from None
                raise


class _Watching(Callback):
    """Tells the workers of a trial that has ended: Tune may keep its driver for another trial and tell it nothing.

    Ends the search where the exchange has died, before anyone takes its trials for failed.
    """

    def __init__(self, exchange: ActorHandle) -> None:
        self._exchange = exchange
        self.lost = False

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._exchange.stop.remote(trial.config["job"].number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        try:
            ray.get(self._exchange.lose.remote(trial.config["job"].number))
        except RayActorError:
            self.lost = True
            raise

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.on_trial_error(iteration, trials, trial)
