"""What an early epoch says about the last: the rank correlation that early stopping lives on, and what it saved."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np

from mtlsearch.search.early_stopping import make_rule
from mtlsearch.search.judging.correlation import WEAK, caution, spearman
from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord, epochs_of, figure, last_stage, row_seconds
from mtlsearch.search.study.stops import stopped_early
from mtlsearch.search.study.study import TrialState
from mtlsearch.search.words import duration, number


def section(study: StudyRecord) -> Section:
    finished = [trial for trial in study.scored if trial.status == "finished"]
    warnings, rows, doubts = [], [], []
    for name in study.metrics:
        for epoch in rungs(study):
            pairs = [
                (trial.history[epoch - 1].get(name, math.nan), figure(trial, name))
                for trial in finished
                if epoch < len(trial.history)
            ]
            own = np.array(pairs).reshape(-1, 2)
            own = own[np.isfinite(own).all(axis=1)]
            value, bounds = spearman(own[:, 0], own[:, 1])
            cells = "–" if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"
            rows.append((name, str(epoch), str(len(own)), number(value), cells))
            if doubt := caution(len(own), value):
                doubts.append(f"{name} after epoch {epoch}: of the trials {doubt}.")
            if value < WEAK and bounds is not None and name == study.settings.first_objective[0]:
                warnings.append(
                    f"{name} after epoch {epoch} ranks the trials by {number(value)} as their end does, below {WEAK}: "
                    "stopping there loses good ones; raise early_stopping.grace_epochs."
                )
    heading = ("figure", "epoch", "trials", "Spearman's ρ", "95 % interval")
    return Section(
        key="rungs",
        title="Early stopping",
        reading=(
            "Spearman's rank correlation of the figure after a rung's epoch with the trial's best at its end: near 1, "
            "stopping there loses nothing; it is of the trials that went on to their end, who are more alike than all."
        ),
        warnings=warnings,
        notes=[_saved(study), *doubts],
        tables=[Table(heading, rows, words=1)] if rows else [],
    )


def rungs(study: StudyRecord) -> list[int]:
    """The epochs at which the study's rule stops, or 1, 2, 4, … where it has no rungs; all before the last."""
    longest = max((epochs_of(trial) for trial in study.searched), default=1)
    rule = make_rule(study.settings, longest)
    milestones = getattr(rule, "milestones", ()) or [2**power for power in range(longest.bit_length())]
    return [epoch for epoch in milestones if epoch < longest]


def _saved(study: StudyRecord) -> str:
    stopped = [trial for trial in study.searched if stopped_early(trial)]
    others = sum(trial.status == "stopped" for trial in study.searched) - len(stopped)
    besides = f" {others} more stopped by hand, at the end of a budget or by themselves." if others else ""
    if not stopped:
        return f"No trial was stopped early.{besides}"
    left = sum(epochs_of(trial) - len(trial.history) for trial in stopped)
    whole = sum(map(epochs_of, study.searched))
    seconds = [_seconds_left(trial) for trial in stopped]
    # what stopped in a cheap stage has no whole epoch to price the others by
    price = f", about {duration(sum(seconds))} at these trials' own speed" if all(map(math.isfinite, seconds)) else ""
    return (
        f"Stopping ended {len(stopped)} of {len(study.searched)} trials and saved {left} of {whole} epochs "
        f"({left / whole:.0%}){price}.{besides}"
    )


def _seconds_left(trial: TrialState) -> float:
    """Seconds that the rest of its training would have taken; NaN where no epoch of its last stage was timed."""
    timed = [row_seconds(row) for row in last_stage(trial)]
    return fmean(timed) * (epochs_of(trial) - len(trial.history)) if timed else math.nan
