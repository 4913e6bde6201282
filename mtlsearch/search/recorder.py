"""What happens to trials, as Ray tells it, written to the study, the tracker and the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle
from ray.tune import Callback
from ray.tune.experiment import Trial

from mtlsearch.search.storage.study_storage import StudyStorage
from mtlsearch.search.study.stops import stop_reason, with_note
from mtlsearch.search.study.study import Status, Study, TrialState
from mtlsearch.search.trials.lost import killed_for_memory, reason_of
from mtlsearch.training.checkpoint import LAST
from mtlsearch.training.record import RECORD, RunRecord


class Observer(Protocol):
    """Someone who wants to know: the tracker, the table on the screen."""

    def epoch_ended(self, trial: TrialState) -> None: ...

    def trial_ended(self, trial: TrialState) -> None: ...


class Recorder(Callback):
    """Turns Ray's callbacks into the study's events and passes them on to the observers.

    stopped: why trials were stopped, by number, as the scheduler fills it in.
    share: what trials have that may run out of memory beside others, and are then postponed; "" where none is beside.
    storage: where trials leave their files, unless it is the study's folder.
    """

    def __init__(
        self,
        study: Study,
        observers: Sequence[Observer],
        stopped: Mapping[int, str] | None = None,
        share: str = "",
        storage: StudyStorage | None = None,
    ) -> None:
        self._study, self._observers, self._stopped = study, observers, {} if stopped is None else stopped
        self._storage = storage
        self._environments: dict[int, dict[str, Any]] = {}
        self._tests: dict[int, dict[str, float]] = {}
        self._failures: dict[int, str] = {}
        self._share, self._out_of_memory = share, set[int]()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks for a restore of its own; the journal is the state."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        number = trial.config["job"].number
        if self._study.trials[number].status != "running":
            return
        if "failure" in result:
            self._failures[number] = result["failure"]
            if result["out_of_memory"]:
                self._out_of_memory.add(number)
        elif "test" in result:
            self._tests[number] = result["test"]
        elif "environment" in result:
            self._environments[number] = result["environment"]
        elif "epoch" in result:
            if result["epoch"] <= len(self._study.trials[number].history):
                return  # its worker died and began again where its checkpoint was
            row = {key: value for key, value in result.items() if key == "epoch" or "/" in key}
            self._study.add_epoch(number, row)
            for observer in self._observers:
                observer.epoch_ended(self._study.trials[number])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        number = trial.config["job"].number
        state = self._study.trials[number]
        if number in self._failures:
            self._fail(number, self._failures[number])
        elif len(state.history) < state.config["training"]["epochs"]:
            why = self._stopped.get(number, "ended by itself")
            self._end(number, "stopped", with_note(stop_reason(why, len(state.history)), state))
        else:
            self._end(number, "finished", with_note("", state))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        number, error = trial.config["job"].number, _error_of(trial)
        if killed_for_memory(error):
            self._out_of_memory.add(number)
        self._fail(number, reason_of(error))

    def _fail(self, number: int, reason: str) -> None:
        """A trial that ran out of memory beside others is not at its end: it goes on from its last epoch, alone."""
        if number in self._out_of_memory and self._share:
            self._study.postpone_trial(number, f"ran out of memory {self._share}")
        else:
            self._end(number, "failed", with_note(reason, self._study.trials[number]))

    def _end(self, number: int, status: Status, reason: str = "") -> None:
        state = self._study.trials[number]
        if state.status != "running":
            return  # Tune has started it again: its end is noted, and what it left there is the study's
        if self._storage is not None and status == "finished":
            self._storage.collect(state)
        self._study.end_trial(number, status, reason, self._tests.get(number), self._environments.get(number))
        clear_up(self._study, state, self._storage)
        for observer in self._observers:
            observer.trial_ended(state)


def _error_of(trial: Trial) -> object:
    """What this process has just noted of a trial's end; Ray's own getters look where it arrives later."""
    if trial.pickled_error_file and Path(trial.pickled_error_file).exists():
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return Path(trial.error_file).read_text() if trial.error_file and Path(trial.error_file).exists() else ""


def clear_up(study: Study, trial: TrialState, storage: StudyStorage | None) -> None:
    """After a trial's end is noted: its record is written, and what would have continued it goes."""
    (study.trial_folder(trial.number) / LAST).unlink(missing_ok=True)
    if trial.history:
        write_record(study, trial)
    if storage is not None:
        storage.ended(trial.number)


def mend_records(study: Study) -> None:
    """Writes the records that a kill, or a lost folder, kept from being written: the journal has all that they hold."""
    for trial in study.trials.values():
        if trial.status != "running" and trial.history and not (study.trial_folder(trial.number) / RECORD).exists():
            write_record(study, trial)


def write_record(study: Study, trial: TrialState) -> None:
    """record.yaml in the trial's folder: what `reproduce` needs, of an early-stopped trial too."""
    record = RunRecord(
        config=trial.config,
        environment=trial.environment,
        history=trial.history,
        objective=study.plan.settings.first_objective,
        about={
            "study": study.folder.name,
            "trial": trial.number,
            "label": trial.label,
            "status": trial.status,
        },
    )
    record.save(study.trial_folder(trial.number) / RECORD)
