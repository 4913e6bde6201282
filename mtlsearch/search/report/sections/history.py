"""How the best figure came down, over trials and over training seconds."""

from __future__ import annotations

import math

import numpy as np

from mtlsearch.search.report.chart import (
    BASELINE,
    FAINT,
    OTHER,
    WINNER,
    Axis,
    Chart,
    Line,
    Panel,
    Points,
    readable_span,
)
from mtlsearch.search.report.section import Section
from mtlsearch.search.report.source import StudyRecord, figure, last_stage, stage_ends
from mtlsearch.search.study.pareto import cost
from mtlsearch.search.study.stops import stopped_early


def section(study: StudyRecord) -> Section:
    panels = []
    for name, mode in study.objectives.items():
        y = Axis(name, span=readable_span([figure(trial, name) for trial in study.scored], mode))
        panels += [_over_trials(study, name, mode, y), _over_seconds(study, name, mode, y)]
    return Section(
        key="history",
        title="History",
        reading=(
            "Each step down of the line is a better trial; a line that is still falling at its end says that more "
            "trials would have paid, a flat one that they would not."
        ),
        charts=[Chart("history", "Best so far", tuple(panels))] if study.epochs else [],
        notes=_notes(study),
    )


def _notes(study: StudyRecord) -> list[str]:
    if not study.epochs:
        return ["No epoch has ended."]
    if any(stage_ends(trial) for trial in study.searched):
        return [
            "Trials began in cheap stages: over trials, a stopped one has the best figure of the stage that it "
            "reached; over seconds, figures of the last stage alone are shown."
        ]
    return []


def _over_trials(study: StudyRecord, name: str, mode: str, y: Axis) -> Panel:
    by_number = {trial.number: trial for trial in study.searched}
    order = [by_number[number] for number in study.ends if number in by_number]
    values = [math.nan if trial.status == "failed" else figure(trial, name) for trial in order]
    x = list(range(1, len(order) + 1))
    dots = []
    for words, color, chosen in (
        ("finished", OTHER, [trial.status == "finished" and not trial.label for trial in order]),
        ("baseline", BASELINE, [trial.status == "finished" and bool(trial.label) for trial in order]),
        ("stopped early", OTHER, [stopped_early(trial) for trial in order]),
        ("stopped otherwise", FAINT, [trial.status == "stopped" and not stopped_early(trial) for trial in order]),
    ):
        if any(chosen):
            kept = [position for position, keep in enumerate(chosen) if keep]
            texts = [f"trial {order[p].number} {order[p].label}".strip() for p in kept]
            hollow = words.startswith("stopped")
            own = Points([x[p] for p in kept], [values[p] for p in kept], words, color, hollow=hollow, texts=texts)
            dots.append(own)
    best = Line(x, best_so_far(values, mode), "best so far", WINNER, steps=True)
    return Panel(f"{name} over trials", Axis("trials that have ended"), y, (*dots, best))


def _over_seconds(study: StudyRecord, name: str, mode: str, y: Axis) -> Panel:
    """Of the epochs of each trial's last stage: figures of cheaper ones are not comparable."""
    comparable = {(trial.number, row["epoch"]) for trial in study.searched for row in last_stage(trial)}
    values = [
        moment.row.get(f"best/{name}", math.nan)
        if (moment.trial.number, moment.row["epoch"]) in comparable
        else math.nan
        for moment in study.epochs
    ]
    seconds = [moment.seconds for moment in study.epochs]
    best = best_so_far(values, mode)
    line = Line(seconds, best, "best so far", WINNER, steps=True)
    return Panel(f"{name} over training seconds", Axis("seconds of training and validation"), y, (line,))


def best_so_far(values: list[float], mode: str) -> list[float]:
    """The best of the first, the first two, …; NaN before the first finite value."""
    least = np.minimum.accumulate([cost(value, mode) for value in values]) if values else np.array([])
    sign = 1 if mode == "min" else -1
    return [sign * float(value) if math.isfinite(value) else math.nan for value in least]
