"""Learning curves of the trials."""

from __future__ import annotations

import math

from mtlsearch.search.report.chart import (
    BASELINE,
    FAINT,
    PALETTE,
    WINNER,
    Axis,
    Chart,
    Line,
    Panel,
    grouped,
    readable_span,
    whole_ticks,
)
from mtlsearch.search.report.section import Section
from mtlsearch.search.report.source import StudyRecord
from mtlsearch.search.study.study import TrialState

#: of the best that get a colour of their own
_NAMED = 4


def section(study: StudyRecord) -> Section:
    trained = [trial for trial in study.searched if trial.history]
    panels = [_panel(study, trained, name, mode) for name, mode in study.metrics.items()] if trained else []
    return Section(
        key="curves",
        title="Learning curves",
        reading=(
            "Validation figures by epoch; curves that still fall at their end want more epochs, and curves that cross "
            "late are what early stopping gets wrong."
        ),
        notes=[] if trained else ["No epoch has ended."],
        charts=[Chart("curves", "Learning curves", tuple(panels))] if panels else [],
    )


def _panel(study: StudyRecord, trained: list[TrialState], name: str, mode: str) -> Panel:
    named = {trial.number for trial in study.ranked[:_NAMED]}
    named |= {trial.number for trial in trained if trial.label or trial is study.winner}
    series = []
    if rest := [_curve(trial, name) for trial in trained if trial.number not in named]:
        series.append(Line(*grouped(rest), "other trials", FAINT, width=0.8))
    colors = iter(PALETTE * len(named))
    shown: list[float] = [value for _, values in rest for value in values]
    for trial in trained:
        if trial.number in named:
            x, y = _curve(trial, name)
            shown += y
            color = WINNER if trial is study.winner else BASELINE if trial.label else next(colors)
            words = f"trial {trial.number}" + (f" ({trial.label})" if trial.label else "")
            words += ", winner" if trial is study.winner else ""
            series.append(Line(x, y, words, color, 2.6 if trial is study.winner else 1.8, dashed=bool(trial.label)))
    y_axis = Axis(name, span=readable_span(shown, mode))
    x_axis = Axis("epoch", ticks=whole_ticks(max(len(trial.history) for trial in trained)))
    return Panel(f"{name} by epoch", x_axis, y_axis, tuple(series), wide=True, height=380)


def _curve(trial: TrialState, name: str) -> tuple[list[float], list[float]]:
    return [row["epoch"] for row in trial.history], [row.get(name, math.nan) for row in trial.history]
