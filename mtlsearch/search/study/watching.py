"""A study seen from another process: how far it is, and what can be asked of it while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mtlsearch.errors import InputError
from mtlsearch.search.plan.constraints import Checker
from mtlsearch.search.plan.plan import SearchPlan, load_plan
from mtlsearch.search.study.requests import Requests
from mtlsearch.search.study.stops import ending
from mtlsearch.search.study.study import LOCK, PHASES, TrialState, read_trials
from mtlsearch.training.recipes import apply_overrides, recipe_tree


@dataclass(frozen=True)
class Watched:
    """A study as its folder tells it. `running`: a process has it open now."""

    folder: Path
    plan: SearchPlan
    trials: list[TrialState]
    running: bool

    @property
    def complete(self) -> bool:
        """Whether every trial of search and confirmation has ended, as far as they were planned."""
        return (self.folder / "best.yaml").exists() and all(trial.status != "running" for trial in self.trials)

    def lines(self) -> list[str]:
        """Where it stands, in words."""
        searched = [trial for trial in self.trials if trial.phase == "search"]
        counts = {
            status: sum(trial.status == status for trial in searched)
            for status in ("finished", "stopped", "failed", "running")
        }
        words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        state = "running" if self.running else "not running"
        lines = [
            f"{self.folder.absolute()}: {state}",
            f"search: {len(searched)} of {self.plan.settings.num_samples} trials begun ({words or 'none'})",
        ]
        for phase in ("confirm", "full"):
            if again := [trial for trial in self.trials if trial.phase == phase]:
                ended = sum(trial.status != "running" for trial in again)
                lines.append(f"{PHASES[phase]}: {ended} of {len(again)} runs that have begun have ended")
        if waiting := Requests(self.folder).waiting():
            lines.append(f"{waiting} trials were asked for and wait for their turn")
        lines += [f"a trial that was asked for was refused: {why}" for why in Requests(self.folder).refused()]
        return lines


def watch(folder: Path) -> Watched:
    """Raises InputError where the folder holds no study."""
    if not (folder / "space.yaml").is_file():
        raise InputError(f"{folder} holds no study; give the folder that tune printed, results/NAME")
    return Watched(folder, load_plan(str(folder / "space.yaml")), read_trials(folder), _is_run(folder))


def trial_of(study: Watched, number: int) -> TrialState:
    """Raises InputError where the study has no such trial."""
    for trial in study.trials:
        if trial.number == number:
            return trial
    raise InputError(f"{study.folder} has {len(study.trials)} trials, from 0; there is no trial {number}")


def add_trial(folder: Path, like: str, overrides: Iterable[str]) -> list[str]:
    """Asks a study for the config `like` (a trial's number, a recipe or a file) with overrides; says what happens next.

    Raises:
        InputError: the config is no point of the study's space.
    """
    study = watch(folder)
    base = trial_of(study, int(like)).config if like.isdigit() else recipe_tree(like)
    config = study.plan.config_of(apply_overrides(base, overrides)).tree()
    try:
        point = study.plan.point_of(config, "it")
    except InputError as error:
        raise InputError(f"this trial cannot be asked for: {error}") from None
    if fault := Checker(study.plan.settings.constraints).fault(study.plan.config_of(config)):
        raise InputError(f"this trial cannot be asked for: it violates search.constraints: {fault}")
    Requests(folder).add_trial(point)
    begun = sum(trial.phase == "search" for trial in study.trials)
    lines = ["asked for: " + ", ".join(f"{key}={value}" for key, value in point.items())]
    if begun >= study.plan.settings.num_samples:
        lines.append(f"all {begun} trials of the search have begun; resume it with a larger --num-samples to run this")
    elif not study.running:
        lines.append("the study is not running; it comes first when the study is resumed")
    return lines


def stop_trial(folder: Path, number: int) -> str:
    """Asks a running trial of the search to stop after its epoch.

    Raises:
        InputError: there is no such trial, it has ended or is none of the search, or nobody runs the study.
    """
    study = watch(folder)
    trial = trial_of(study, number)
    if trial.status != "running":
        raise InputError(f"trial {number} has ended already: {ending(trial)}")
    if trial.phase != "search":
        raise InputError(
            f"trial {number} is a run of the {PHASES[trial.phase]}, whose runs are compared whole; only trials of the "
            "search can be stopped. To end the study, press Ctrl-C where it runs"
        )
    if not study.running:
        raise InputError(f"{folder} is not running, so nothing of it can be stopped")
    Requests(folder).stop(number)
    return f"trial {number} stops after its epoch {len(trial.history) + 1}"


def _is_run(folder: Path) -> bool:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
