"""MLflow runs of a study or of a single training: a parent run per study, a child run per trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from mtlsearch._masking import without_secrets
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
        metrics = _metrics(row, step)
        for start in range(0, len(metrics), names.METRICS_PER_BATCH):
            self._batch(metrics=metrics[start : start + names.METRICS_PER_BATCH])

    def log_missing_rows(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Those of the rows whose epoch the run does not have yet: a kill loses what was still to be written."""

        def write(client: Any) -> None:
            key = next((name for name in rows[-1] if name != "epoch"), None) if rows else None
            there = {metric.step for metric in client.get_metric_history(self.run_id, key)} if key else set()
            for row in rows:
                if int(row["epoch"]) not in there:
                    client.log_batch(self.run_id, metrics=_metrics(row, int(row["epoch"])))

        self._tracker.write(write)

    def log_parameters(self, config: Mapping[str, Any]) -> None:
        parameters = [Param(key, value) for key, value in names.parameters(config).items()]
        for start in range(0, len(parameters), names.PARAMETERS_PER_BATCH):
            self._batch(params=parameters[start : start + names.PARAMETERS_PER_BATCH])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        written = [RunTag(key, str(value)) for key, value in tags.items()]
        for start in range(0, len(written), names.TAGS_PER_BATCH):
            self._batch(tags=written[start : start + names.TAGS_PER_BATCH])

    def set_config_tags(self, prefix: str, config: Mapping[str, Any]) -> None:
        """A run config as tags `PREFIX.KEY`, in the place of those that the run has under this prefix.

        Unlike parameters, which MLflow refuses to change, it may become another.
        """
        tags = {f"{prefix}.{key}": value for key, value in names.parameters(config).items()}

        def clear(client: Any) -> None:
            for key in client.get_run(self.run_id).data.tags:
                if key.startswith(f"{prefix}.") and key not in tags:
                    client.delete_tag(self.run_id, key)

        self._tracker.write(clear)
        self.set_tags(tags)

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
        self._writer = Writer(lambda text: say(without_secrets(text, uri)))

    def start_run(self, name: str, tags: Mapping[str, object], again: Sequence[str] = ()) -> TrackedRun:
        """A run made at once: of a study, or of a single training. A store that cannot be written is known here.

        again: names of tags by which a run that is there already is known, and gone on with.
        """
        run = TrackedRun(self)
        self._make(run, name, tags, again)
        return run

    def start_trial(
        self, name: str, tags: Mapping[str, object], parent: TrackedRun, again: Sequence[str] = ()
    ) -> TrackedRun:
        """A child run, made through the queue: where the tracker is down the trial starts all the same."""
        run = TrackedRun(self)
        tries = 0

        def make(_: Any) -> None:
            nonlocal tries
            tries += 1
            whole = {**tags, names.PARENT_TAG: parent.run_id}
            # a try whose answer was lost on the way may have made it; MLflow's filters know no quotes in quotes
            known = [key for key, value in whole.items() if "'" not in str(value)]
            self._make(run, name, whole, again if tries == 1 else known)

        self.write(make)
        return run

    def _make(self, run: TrackedRun, name: str, tags: Mapping[str, object], again: Sequence[str]) -> None:
        text = {key: str(value) for key, value in tags.items()}
        if again:
            wanted = " and ".join(f"tags.`{key}` = '{text[key]}'" for key in again)
            found = self._client.search_runs([self.experiment_id], wanted, max_results=1)
            if found:
                run.run_id = found[0].info.run_id
                self._client.update_run(run.run_id, status="RUNNING")
                return
        run.run_id = self._client.create_run(self.experiment_id, tags=text, run_name=name).info.run_id

    def write(self, action: Callable[[Any], object]) -> None:
        self._writer.put(lambda: action(self._client))

    def close(self) -> int:
        """Waits for what is still to be written; returns how many writes were given up."""
        return self._writer.close()


def _metrics(row: Mapping[str, float], step: int) -> list[Metric]:
    stamp = int(time.time() * 1000)
    return [Metric(key, float(value), stamp, step) for key, value in row.items() if key != "epoch"]
