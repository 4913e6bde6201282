"""A study on disk: its folder, its journal, and the state of its trials, which is the journal replayed."""

from __future__ import annotations

import csv
import io
import math
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from mtlsearch.errors import InputError
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.plan.space import Point
from mtlsearch.search.study.budget import Usage
from mtlsearch.search.study.journal import Event, Journal, mend_journal, read_journal
from mtlsearch.search.study.paced import Paced
from mtlsearch.search.study.pareto import Figures, cost
from mtlsearch.training.folders import new_folder
from mtlsearch.training.loop import Row
from mtlsearch.training.merge import flatten
from mtlsearch.training.yaml_files import dump_yaml, write_text

Learned = tuple[Point, Figures]
"""a trial of another study: its point in this one's space, and the figures of its best epoch"""
Status = Literal["running", "finished", "stopped", "failed"]
Phase = Literal["search", "confirm", "full"]
#: what the phases of a study are called
PHASES: dict[Phase, str] = {"search": "search", "confirm": "confirmation", "full": "full size"}

JOURNAL = "journal.jsonl"
LOCK = ".lock"
LEADERBOARD = "leaderboard.csv"
CONFIRMATION = "confirmation.csv"
WINNER = "winner.safetensors"
#: in the folder of a trial whose files could not be brought yet from where the study is kept
OWED = ".owed"


@dataclass
class TrialState:
    """One trial as the journal tells it."""

    number: int
    phase: Phase
    label: str
    """the baseline's name, "" for a sampled trial, the candidate's name while confirming"""
    config: dict[str, Any]
    point: Point = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    status: Status = "running"
    reason: str = ""
    postponed: str = ""
    """what befell it beside others, where it is to be trained alone, or was: "ran out of memory at 0.25 GPU"."""
    test: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Row:
        """The newest `best/…` figures and costs, without the prefix: `{"val/nme": …}`; empty before the first epoch."""
        if not self.history:
            return {}
        found = {key[len("best/") :]: value for key, value in self.history[-1].items() if key.startswith("best/")}
        found.pop("epoch", None)
        return found

    @property
    def best_epoch(self) -> int:
        return int(self.history[-1]["best/epoch"]) if self.history else 0

    def apply(self, event: Event) -> None:
        if event["event"] == "epoch":
            self.history.append(event["row"])
        elif event["event"] == "postponed":
            self.postponed = event["why"]
        elif event["event"] == "end":
            self.status, self.reason = event["status"], event["reason"]
            self.test, self.environment = event["test"], event["environment"]


class Study:
    """The folder `results/<name>`: journal.jsonl, leaderboard.csv, trials/, and at the end best.yaml and the rest."""

    def __init__(self, folder: Path, plan: SearchPlan, identity: str, trials: Iterable[TrialState] = ()) -> None:
        self.folder, self.plan = folder, plan
        self.identity = identity
        """a name that no other study has, for those who keep records of it elsewhere"""
        self.trials: dict[int, TrialState] = {trial.number: trial for trial in trials}
        self._counts = Counter(trial.phase for trial in self.trials.values())
        self._leaderboard = Paced(self._write_leaderboard)
        self.learned: list[Learned] = []
        """what the sampler is told before the first trial"""
        self.past_epochs: list[tuple[int, Row]] = []
        """of a study that goes on, its search's epochs in the order in which they happened: (trial, row)"""
        self.usage = Usage()
        """what its search has used so far, over all resumptions"""
        self._lock = study_lock(folder)
        if (folder / JOURNAL).exists():
            mend_journal(folder / JOURNAL)  # under the lock: it is nobody's unfinished line but a dead process's
        self._journal = Journal(folder / JOURNAL)

    @classmethod
    def create(
        cls,
        results: Path,
        plan: SearchPlan,
        name: str | None = None,
        data: str = "",
        learned: Iterable[Learned] = (),
    ) -> Study:
        """A new study in a folder of its own under `results`; two that start in one second get two folders.

        data: what data its numbers come from, in words; learned: trials of another study.

        Raises:
            InputError: the folder cannot be written, or a study of this name is there.
        """
        folder = new_folder(results, f"{plan.name}-{datetime.now():%Y%m%d-%H%M%S}", name)
        (folder / "trials").mkdir()
        study_files(folder, plan)
        study = cls(folder, plan, uuid.uuid4().hex)
        event = {"event": "study", "name": folder.name, "id": study.identity, "space": plan.digest, "data": data}
        study._append({**event, "objectives": dict(plan.settings.objectives)})
        study.learned = list(learned)
        if study.learned:
            study._append({"event": "learned", "trials": study.learned})
        return study

    @classmethod
    def reopen(cls, folder: Path, plan: SearchPlan) -> Study:
        """A study that was interrupted, killed, or is to get more trials; `plan` may be wider than its own was.

        A trial whose last event is not its end is "running": whoever continues the study continues it.

        Raises:
            InputError: the folder holds no study, its journal is damaged, another process runs it, a trial of it is no
                point of the plan's space, or it has other objectives.
        """
        events = list(read_journal(folder / JOURNAL))
        if not events or events[0]["event"] != "study":
            raise InputError(f"{folder / JOURNAL} does not begin as a study's journal does")
        trials = replay(events)
        _check_plan(plan, trials, folder)
        _check_objectives(plan, events[0].get("objectives"), folder)
        study = cls(folder, plan, events[0].get("id", folder.name), trials)
        study_files(folder, plan)
        for trial in trials:  # a folder that was lost comes back without those of trials that go on
            study.trial_folder(trial.number).mkdir(parents=True, exist_ok=True)
        study.past_epochs = _epochs(events)
        study.learned = [
            (point, figures) for one in events if one["event"] == "learned" for point, figures in one["trials"]
        ]
        for event in events:
            study.usage.see(event)
        study._append({"event": "resumed", "space": plan.digest})
        return study

    def trial_folder(self, number: int) -> Path:
        return trial_folder(self.folder, number)

    def begin_search(self, gpus: float) -> None:
        """The search phase begins or goes on, each trial with so many GPUs."""
        self._append({"event": "search", "gpus": gpus})

    def end_search(self, why: str) -> None:
        """Notes why the search is over although fewer trials than asked for have begun."""
        self._append({"event": "search_end", "why": why})

    def add_trial(self, phase: Phase, label: str, config: Mapping[str, Any], point: Point) -> TrialState:
        """Registers the next trial before it starts."""
        trial = TrialState(len(self.trials), phase, label, dict(config), dict(point))
        self.trials[trial.number] = trial
        self._counts[phase] += 1
        folder = self.trial_folder(trial.number)
        shutil.rmtree(folder, ignore_errors=True)  # of a trial that a kill kept from being registered
        folder.mkdir(parents=True)
        event = {"event": "trial", "number": trial.number, "phase": phase, "label": label}
        self._append({**event, "config": trial.config, "point": trial.point})
        return trial

    def add_epoch(self, number: int, row: Row) -> None:
        self._apply({"event": "epoch", "number": number, "row": row})

    def postpone_trial(self, number: int, why: str) -> None:
        """A trial that others left too little is to go on when they are done."""
        self._apply({"event": "postponed", "number": number, "why": why})

    def end_trial(
        self,
        number: int,
        status: Status,
        reason: str = "",
        test: Mapping[str, float] | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        event = {"event": "end", "number": number, "status": status, "reason": reason}
        self._apply({**event, "test": dict(test or {}), "environment": dict(environment or {})})
        if self.trials[number].phase == "search":
            self._leaderboard.call()

    def _apply(self, event: Event) -> None:
        """Notes what befell a trial. One that has ended may have been started again by mistake: no matter."""
        trial = self.trials[event["number"]]
        if trial.status == "running":
            self._append(event)
            trial.apply(event)

    def _append(self, event: Event) -> None:
        event = {**event, "time": time.time()}
        self._journal.append(event)
        self.usage.see(event)

    def postponed(self, phase: Phase) -> list[TrialState]:
        """The trials of a phase that are still to be trained alone."""
        return [trial for trial in self.of_phase(phase) if trial.postponed and trial.status == "running"]

    def of_phase(self, phase: Phase) -> list[TrialState]:
        return [trial for trial in self.trials.values() if trial.phase == phase]

    def count(self, phase: Phase) -> int:
        """How many trials of a phase have begun."""
        return self._counts[phase]

    def ended(self, phase: Phase) -> int:
        """How many trials of a phase have come to an end of any kind."""
        return sum(trial.status != "running" for trial in self.of_phase(phase))

    def write_leaderboard(self) -> None:
        """Brings leaderboard.csv up to date. While trials end it is at most a little behind: see `Paced`."""
        self._leaderboard.finish()

    def _write_leaderboard(self) -> None:
        write_text(self.folder / LEADERBOARD, leaderboard(self.of_phase("search"), self.plan))

    def close(self) -> None:
        try:
            self.write_leaderboard()
        finally:
            self._journal.close()
            self._lock.release()


def trial_folder(study: Path, number: int) -> Path:
    """Where the checkpoints and the record of a trial lie."""
    return study / "trials" / f"{number:04d}"


def read_trials(folder: Path) -> list[TrialState]:
    """The trials of a study, from its journal alone: what a killed study leaves is all there.

    Raises:
        InputError: the folder holds no study, or its journal is damaged.
    """
    return replay(read_journal(folder / JOURNAL))


def replay(events: Iterable[Event]) -> list[TrialState]:
    """The trials that a journal's events come to."""
    trials: dict[int, TrialState] = {}
    for event in events:
        if event["event"] == "trial":
            keys = ("number", "phase", "label", "config", "point")
            trials[event["number"]] = TrialState(**{key: event[key] for key in keys})
        elif event["event"] in ("epoch", "postponed", "end"):
            trials[event["number"]].apply(event)
    return list(trials.values())


def _epochs(events: Iterable[Event]) -> list[tuple[int, Row]]:
    searched: set[int] = set()
    epochs = []
    for event in events:
        if event["event"] == "trial" and event["phase"] == "search":
            searched.add(event["number"])
        elif event["event"] == "epoch" and event["number"] in searched:
            epochs.append((event["number"], event["row"]))
    return epochs


def study_files(folder: Path, plan: SearchPlan) -> None:
    """Writes the plan into the study's folder."""
    (folder / "baselines").mkdir(exist_ok=True)
    for file, tree in plan.files().items():
        write_text(folder / file, dump_yaml(tree))


def study_lock(folder: Path) -> FileLock:
    """The lock of whoever runs the study; a process that dies, however it dies, lets it go."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder} is being run by another process; `study status` shows how far it is") from None
    return lock


def _check_plan(plan: SearchPlan, trials: Iterable[TrialState], folder: Path) -> None:
    """Raises InputError where a trial is no point of the plan's space: a space may grow between runs, not shrink."""
    for trial in trials:
        if trial.phase == "search":
            try:
                plan.point_of(trial.config, f"trial {trial.number}")
            except InputError as error:
                raise InputError(
                    f"{folder}: the space has changed, and not only grown: {error}. Put the space back, or start a "
                    "study of its own"
                ) from None


def _check_objectives(plan: SearchPlan, before: Mapping[str, str] | None, folder: Path) -> None:
    """Raises InputError where the best epochs of old trials were found by other objectives; before: None: not known."""
    now = plan.settings.objectives
    if before is not None and list(before.items()) != list(now.items()):
        raise InputError(
            f"{folder}: the objectives were {_in_words(before)} and are now {_in_words(now)}; best epochs and weights "
            "of its trials are those of the old ones. Put them back, or start a study of its own"
        )


def _in_words(objectives: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({mode})" for name, mode in objectives.items())


def best_first(trials: Iterable[TrialState], plan: SearchPlan) -> list[TrialState]:
    """The trials by the best value of the first objective, failed ones last."""
    name, mode = plan.settings.first_objective
    return sorted(trials, key=lambda trial: (trial.status == "failed", cost(trial.best.get(name, math.nan), mode)))


def leaderboard(trials: list[TrialState], plan: SearchPlan) -> str:
    """The trials as CSV: rank, objectives, epochs, status, then every key in which they differ."""
    flat = {trial.number: flatten(trial.config) for trial in trials}
    keys = sorted({key for config in flat.values() for key in config})
    differing = [key for key in keys if len({repr(config.get(key)) for config in flat.values()}) > 1]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "rank",
            "trial",
            "label",
            "status",
            "epochs",
            "best_epoch",
            *plan.settings.objectives,
            *differing,
            "reason",
        ]
    )
    for rank, trial in enumerate(best_first(trials, plan), start=1):
        figures = [trial.best.get(objective, "") for objective in plan.settings.objectives]
        axes = [flat[trial.number].get(key, "") for key in differing]
        progress = rank, trial.number, trial.label, trial.status, len(trial.history), trial.best_epoch
        writer.writerow([*progress, *figures, *axes, trial.reason])
    return text.getvalue()
