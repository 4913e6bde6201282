"""What a report is made of: a study read from its folder alone, whole, killed or still running."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.search.judging import confirm
from mtlsearch.search.judging.winner import candidates
from mtlsearch.search.plan.figures import is_cost
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.plan.space import Space
from mtlsearch.search.study.journal import Event, read_journal
from mtlsearch.search.study.study import CONFIRMATION, JOURNAL, TrialState, replay
from mtlsearch.training.loop import Row
from mtlsearch.training.schema import validate
from mtlsearch.training.yaml_files import read_yaml

CONSTANT = "constant prediction"


@dataclass(frozen=True)
class Moment:
    """An epoch of the search: its trial, its row, and the training seconds of the whole search until then."""

    trial: TrialState
    row: Row
    seconds: float


@dataclass(frozen=True)
class StudyRecord:
    """A study as its folder tells it. The problem is not needed, so that a report can be written anywhere."""

    folder: Path
    data: str
    """what data its numbers come from; "" where the journal does not say"""
    settings: SearchSettings
    space: Space
    trials: tuple[TrialState, ...]
    ends: tuple[int, ...]
    """numbers of the trials in the order in which they ended"""
    spans: Mapping[int, tuple[float, float]]
    """when each trial began and when it was last heard of, in seconds since 1970"""
    ended_by: str
    """why the search was over before its last trial, in words; "" where it was not"""
    epochs: tuple[Moment, ...]
    """of the search, in the order in which they happened"""
    began: float
    """seconds since 1970 of the journal's first event"""
    wall_seconds: float
    """that somebody ran the study: from the first event to the last, less the pauses before it was resumed"""

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @property
    def objectives(self) -> Mapping[str, str]:
        return self.settings.objectives

    @property
    def metrics(self) -> dict[str, str]:
        """The objectives that change while a model trains: those that are no costs."""
        return {name: mode for name, mode in self.objectives.items() if not is_cost(name)}

    @cached_property
    def searched(self) -> list[TrialState]:
        """The trials of the search."""
        return [trial for trial in self.trials if trial.phase == "search"]

    @cached_property
    def scored(self) -> list[TrialState]:
        """Trials of the search that have a finite figure for every objective and did not fail."""
        return [
            trial
            for trial in self.searched
            if trial.status != "failed" and all(math.isfinite(figure(trial, name)) for name in self.objectives)
        ]

    @cached_property
    def ranked(self) -> list[TrialState]:
        """The finished trials from best to worst by the study's rule."""
        return candidates(self.searched, self.objectives, self.settings.winner)

    @cached_property
    def confirmed(self) -> list[confirm.Confirmed]:
        """What is to be confirmed, with the runs that have begun."""
        seeds = confirm.fresh_seeds(self.settings.seed, self.settings.confirm.seeds)
        chosen = confirm.choose(self.searched, self.ranked, self.settings.confirm.top)
        return confirm.collect(self.trials, chosen, seeds, self.folder)

    @cached_property
    def confirmation_whole(self) -> bool:
        """Whether every candidate has all its runs behind it."""
        seeds = self.settings.confirm.seeds
        ended = [sum(run.status != "running" for run in one.runs) for one in self.confirmed]
        return seeds > 0 and bool(ended) and min(ended) == seeds

    @cached_property
    def ranking(self) -> tuple[list[confirm.Confirmed], str]:
        """The confirmed from best to worst and the rule; nobody before the confirmation is whole."""
        if not self.confirmation_whole:
            return [], ""
        return confirm.ranking(self.confirmed, self.settings)

    @cached_property
    def winner(self) -> TrialState | None:
        """The trial of the search that won: by the confirmation where it is whole."""
        order, _ = self.ranking
        if order:
            return order[0].trial
        return self.ranked[0] if self.ranked else None

    @cached_property
    def constant(self) -> dict[str, float]:
        """The constant prediction's figures, `val/…` and `test/…`, where the confirmation wrote them down."""
        path = self.folder / CONFIRMATION
        if not path.exists():
            return {}
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("name") == CONSTANT]
        return {key: float(value) for row in rows for key, value in row.items() if "/" in str(key) and value}


def read_study(folder: Path) -> StudyRecord:
    """The study in `folder`.

    Raises:
        InputError: there is none, or one of its files is damaged.
    """
    events = list(read_journal(folder / JOURNAL))
    trials = {trial.number: trial for trial in replay(events)}
    moments: list[Moment] = []
    seconds = 0.0
    for event in events:
        if event["event"] == "epoch" and trials[event["number"]].phase == "search":
            row = event["row"]
            seconds += row_seconds(row)
            moments.append(Moment(trials[event["number"]], row, seconds))
    document = read_yaml(folder / "space.yaml")
    try:
        space = Space(read_yaml(folder / "base.yaml"), document["space"])
        settings = validate(SearchSettings, document["search"], f"{folder / 'space.yaml'}: search")
    except KeyError as error:
        raise InputError(f"{folder / 'space.yaml'} lacks {error}; a study's own has `space` and `search`") from None
    parameters = dict(space.parameters())
    for trial in trials.values():  # of a space that was edited since, what it no longer has
        trial.point = {
            name: value for name, value in trial.point.items() if name in parameters and parameters[name].admits(value)
        }
    timed = [event for event in events if "time" in event]
    pauses = [event["time"] - before["time"] for before, event in pairwise(timed) if event["event"] == "resumed"]
    clock = [event["time"] for event in timed] or [0.0]
    return StudyRecord(
        folder=folder,
        data=next((event["data"] for event in events if event.get("data")), ""),
        settings=settings,
        space=space,
        trials=tuple(trials.values()),
        ends=tuple(event["number"] for event in events if event["event"] == "end"),
        spans=_spans(events),
        ended_by=_ended_by(events),
        epochs=tuple(moments),
        began=clock[0],
        wall_seconds=clock[-1] - clock[0] - sum(pauses),
    )


def _ended_by(events: Sequence[Event]) -> str:
    why = ""
    for event in events:
        if event["event"] in ("search", "search_end"):  # a search that goes on has not ended
            why = event.get("why", "")
    return why


def _spans(events: Sequence[Event]) -> dict[int, tuple[float, float]]:
    spans: dict[int, tuple[float, float]] = {}
    for event in events:
        if event["event"] in ("trial", "epoch", "end"):
            time = event.get("time", 0.0)
            begun, _ = spans.get(event["number"], (time, time))
            spans[event["number"]] = begun, time
    return spans


def figure(trial: TrialState, objective: str) -> float:
    """The trial's figure at its best epoch; NaN where it has none."""
    return trial.best.get(objective, math.nan)


def seconds_of(trial: TrialState) -> float:
    """Seconds of training and validation."""
    return sum(map(row_seconds, trial.history))


def row_seconds(row: Row) -> float:
    """The same of an epoch."""
    return row.get("time/train_s", 0.0) + row.get("time/val_s", 0.0)


def last_stage(trial: TrialState) -> list[Row]:
    """The epochs of the trial after its cheap stages; without `training.stages` all."""
    return [row for row in trial.history if row["epoch"] > max(stage_ends(trial), default=0)]


def stage_ends(trial: TrialState) -> tuple[int, ...]:
    """The last epoch of each of the trial's cheap stages, by its config."""
    return tuple(stage["until"] for stage in trial.config.get("training", {}).get("stages", ()))


def epochs_of(trial: TrialState) -> int:
    """Epochs of the trial's whole training, by its config."""
    return int(trial.config.get("training", {}).get("epochs", len(trial.history)))
