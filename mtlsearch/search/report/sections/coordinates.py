"""Every trial as one line through all its values: parallel coordinates."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from mtlsearch.search.plan.distributions import Options, Range
from mtlsearch.search.report.chart import BASELINE, FAINT, GOOD, WINNER, Axis, Chart, Line, Panel, grouped
from mtlsearch.search.report.section import Section, short_names
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.study.pareto import best_first, costs_of
from mtlsearch.search.study.study import TrialState

#: axes beyond which the picture is a hatching
_AXES = 12
#: pixels that an axis needs
_AXIS_WIDTH = 64
#: where a trial passes an axis that it does not have
_ABSENT = -0.12


def section(study: StudyRecord) -> Section:
    names = _axes(study)
    left = len({name for trial in study.scored for name in trial.point}) - len(names)
    notes = [f"{left} parameters that fewer trials have, or that never vary, are left out."] if left else []
    chart = []
    if len(study.scored) < 2 or not names:
        notes = ["Fewer than two trials have figures, or nothing varies."]
    else:
        chart.append(Chart("coordinates", "Parallel coordinates", (_panel(study, names),)))
    return Section(
        key="coordinates",
        title="Parallel coordinates",
        reading=(
            "A line is a trial; where the coloured ones, the best, come together the choice mattered, and where they "
            "fan out it did not; a line below an axis is of a trial without that parameter; figures are best at the "
            "bottom."
        ),
        notes=notes,
        charts=chart,
    )


def _axes(study: StudyRecord) -> list[str]:
    """The parameters that vary, those of most trials first, in the order of the space."""
    count = Counter(name for trial in study.scored for name in trial.point)
    varying = [
        name
        for name, _ in study.space.parameters()
        if len({trial.point[name] for trial in study.scored if name in trial.point}) > 1
    ]
    most = sorted(varying, key=lambda name: -count[name])[: max(1, _AXES - len(study.objectives))]
    return [name for name in varying if name in most]


def _panel(study: StudyRecord, names: list[str]) -> Panel:
    parameters = dict(study.space.parameters())
    places = {name: {t.number: _place(parameters[name], t.point[name]) for t in study.scored if name in t.point}
              for name in names}  # fmt: skip
    for name, mode in study.objectives.items():
        places[name] = _ranks(study, name, mode)
    short = short_names(list(places))
    ticks = tuple((float(position), short[name]) for position, name in enumerate(places))
    series = []
    for words, color, width, trials in _groups(study):
        x, y = grouped([_line(trial, places) for trial in trials])
        series.append(Line(x, y, words, color, width))
    low_high = ((_ABSENT, "absent"), (0.0, "lowest, first"), (1.0, "highest, last"))
    shown = Axis(ticks=low_high, span=(_ABSENT - 0.05, 1.05))
    span = (-0.3, len(ticks) - 0.7)
    return Panel(
        "", Axis(ticks=ticks, span=span), shown, tuple(series), wide=True, height=480, least_width=64 * len(ticks)
    )


def _groups(study: StudyRecord) -> list[tuple[str, str, float, list[TrialState]]]:
    """Name, colour, width, trials; the best drawn last."""
    order = [study.scored[row] for row in best_first(costs_of([t.best for t in study.scored], study.objectives))]
    tenth = max(1, math.ceil(0.1 * len(order)))
    third = max(tenth, math.ceil(len(order) / 3))
    groups = [
        ("the rest", FAINT, 0.6, order[third:]),
        ("best third", BASELINE, 1.2, order[tenth:third]),
        ("best tenth", GOOD, 2.2, [trial for trial in order[:tenth] if trial is not study.winner]),
        ("winner", WINNER, 3.2, [trial for trial in order if trial is study.winner]),
    ]
    return [group for group in groups if group[3]]


def _line(trial: TrialState, places: dict[str, dict[int, float]]) -> tuple[list[float], list[float]]:
    heights = [own.get(trial.number, _ABSENT) for own in places.values()]
    return [float(position) for position in range(len(heights))], heights


def _place(parameter: Range | Options, value: float | str) -> float:
    """Where a value lies on its axis, from 0 to 1."""
    if isinstance(parameter, Options):
        return parameter.labels.index(str(value)) / max(1, len(parameter.labels) - 1)
    return parameter.position(float(value))


def _ranks(study: StudyRecord, name: str, mode: str) -> dict[int, float]:
    """Place by rank, the best at 0: values are often far apart."""
    sign = 1 if mode == "min" else -1
    order = np.argsort([sign * figure(trial, name) for trial in study.scored], kind="stable")
    return {study.scored[row].number: place / max(1, len(order) - 1) for place, row in enumerate(order)}
