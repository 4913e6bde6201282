"""The study in the tracker: an observer that gives each trial a run of its own under the study's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtlsearch.search.study.study import Study, TrialState
from mtlsearch.tracking.names import environment_tags
from mtlsearch.training import environment
from mtlsearch.training.record import RECORD

if TYPE_CHECKING:
    from mtlsearch.tracking import TrackedRun, Tracker

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class TrackedStudy:
    """Parent run at construction, child runs as trials are registered; a study that goes on finds its own again."""

    def __init__(self, tracker: Tracker, study: Study) -> None:
        self._tracker, self._study = tracker, study
        tags = {
            "kind": "study",
            "study": study.folder.name,
            "study.id": study.identity,
            "space.digest": study.plan.digest,
        }
        known = ("kind", "study.id") if study.trials else ()
        self.parent = tracker.start_run(study.folder.name, {**tags, **environment_tags(environment.describe())}, known)
        self.parent.log_file(study.folder / "space.yaml")
        self._runs: dict[int, TrackedRun] = {}
        for trial in study.trials.values():
            self._mend(trial)

    def trial_registered(self, trial: TrialState) -> None:
        if trial.number not in self._runs:
            self._start(trial)

    def _mend(self, trial: TrialState) -> None:
        """Finds a trial's run, or makes it, and writes what a kill kept from being written."""
        run = self._start(trial, again=("study.id", "trial"))
        run.log_missing_rows(trial.history)
        if trial.status != "running":
            self.trial_ended(trial)

    def _start(self, trial: TrialState, again: Sequence[str] = ()) -> TrackedRun:
        name = f"trial {trial.number}" if trial.phase == "search" else f"{trial.phase} {trial.number}"
        tags = {
            "kind": "trial",
            "study": self._study.folder.name,
            "study.id": self._study.identity,
            "trial": trial.number,
            "phase": trial.phase,
            "label": trial.label,
            "seed": trial.config["seed"],
        }
        run = self._tracker.start_trial(f"{name} {trial.label}".strip(), tags, self.parent, again)
        run.log_parameters(trial.config)
        self._runs[trial.number] = run
        return run

    def epoch_ended(self, trial: TrialState) -> None:
        row = trial.history[-1]
        self._runs[trial.number].log_row(row, step=int(row["epoch"]))

    def trial_ended(self, trial: TrialState) -> None:
        run = self._runs[trial.number]
        run.log_row({f"test/{name}": value for name, value in trial.test.items()}, step=len(trial.history))
        tags: dict[str, Any] = {"status": trial.status, "reason": trial.reason}
        run.set_tags({**tags, **(environment_tags(trial.environment) if trial.environment else {})})
        record = self._study.trial_folder(trial.number) / RECORD
        if record.exists():
            run.log_file(record)
        run.end(_STATUS[trial.status])

    def finish(self, winner: TrialState | None, interrupted: bool) -> None:
        """The winner's figures and files on the parent run."""
        if winner is not None:
            self.parent.log_row({f"best/{key}": value for key, value in winner.best.items()}, step=0)
            self.parent.set_config_tags("winner", winner.config)  # a study that goes on may find another
            self.parent.set_tags({"winner": winner.number})
        for path in sorted(self._study.folder.iterdir()):
            if path.suffix in (".yaml", ".csv", ".safetensors", ".html"):
                self.parent.log_file(path)
        self.parent.end("KILLED" if interrupted else "FINISHED")
