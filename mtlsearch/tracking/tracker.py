"""MLflow runs of a study or of a single training: a parent run per study, a child run per trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from mtlsearch.tracking import names
from mtlsearch.tracking.store import open_store
from mtlsearch.tracking.writer import Writer


class TrackedRun:
    """One MLflow run. Every write is queued, in order, the making of the run itself first."""

    run_id: str
    """known once the run is made, which is before any other write of it is carried out"""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log_row(self, row: Mapping[str, float], step: int) -> None:
        """The metrics of an epoch, with step = epoch."""
        stamp = int(time.time() * 1000)
        metrics = [Metric(key, float(value), stamp, step) for key, value in row.items() if key != "epoch"]
        for start in range(0, len(metrics), names.METRICS_PER_BATCH):
            self._batch(metrics=metrics[start : start + names.METRICS_PER_BATCH])

    def log_parameters(self, config: Mapping[str, Any]) -> None:
        parameters = [Param(key, value) for key, value in names.parameters(config).items()]
        for start in range(0, len(parameters), names.PARAMETERS_PER_BATCH):
            self._batch(params=parameters[start : start + names.PARAMETERS_PER_BATCH])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._batch(tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_file(self, path: Path) -> None:
        """A file as an artifact of the run, under its own name."""
        self._tracker.write(lambda client: client.log_artifact(self.run_id, str(path)))

    def end(self, status: str = "FINISHED") -> None:
        """status: FINISHED, FAILED or KILLED (stopped early)."""
        self._tracker.write(lambda client: client.set_terminated(self.run_id, status))

    def _batch(self, **content: Any) -> None:
        self._tracker.write(lambda client: client.log_batch(self.run_id, **content))


class Tracker:
    """An open MLflow store."""

    def __init__(self, uri: str, say: Callable[[str], None]) -> None:
        """Raises InputError where the store cannot be opened."""
        self.uri = uri
        self._client, self.experiment_id = open_store(uri)
        self._writer = Writer(say)

    def start_run(self, name: str, tags: Mapping[str, object]) -> TrackedRun:
        """A run made at once: of a study, or of a single training. A store that cannot be written is known here."""
        run = TrackedRun(self)
        self._make(run, name, tags)
        return run

    def start_trial(self, name: str, tags: Mapping[str, object], parent: TrackedRun) -> TrackedRun:
        """A child run, made through the queue: where the tracker is down the trial starts all the same."""
        run = TrackedRun(self)
        self.write(lambda _: self._make(run, name, {**tags, names.PARENT_TAG: parent.run_id}))
        return run

    def _make(self, run: TrackedRun, name: str, tags: Mapping[str, object]) -> None:
        text = {key: str(value) for key, value in tags.items()}
        run.run_id = self._client.create_run(self.experiment_id, tags=text, run_name=name).info.run_id

    def write(self, action: Callable[[Any], object]) -> None:
        self._writer.put(lambda: action(self._client))

    def close(self) -> int:
        """Waits for what is still to be written; returns how many writes were given up."""
        return self._writer.close()
