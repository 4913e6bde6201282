"""What was traded for what: the Pareto front."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np

from mtlsearch.search.report.chart import (
    BASELINE,
    GOOD,
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
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.study.pareto import costs_of, fronts
from mtlsearch.search.study.study import TrialState

#: pairs of objectives that are shown: all pairs of four
_PAIRS = 6


def section(study: StudyRecord) -> Section:
    names = list(study.objectives)
    notes, charts = [], []
    finished = study.ranked
    if len(names) < 2:
        notes.append(f"There is one objective, {names[0]}, and so no front: the order of the trials is that of it.")
    elif not finished:
        notes.append("No trial ran to its end with finite figures.")
    else:
        panels = tuple(_panel(study, *pair) for pair in islice(combinations(names, 2), _PAIRS))
        front = fronts(costs_of([trial.best for trial in finished], study.objectives))[0]
        numbers = ", ".join(str(finished[row].number) for row in sorted(front, key=lambda r: finished[r].number))
        notes.append(f"On the front of all objectives: trial{'s' if len(front) > 1 else ''} {numbers}.")
        charts.append(Chart("pareto", "Pareto front", panels))
    return Section(
        key="pareto",
        title="Pareto front",
        reading=(
            "No finished trial is better than one on the green line in both figures; diamonds are means over the "
            "fresh seeds with their standard deviations, and fronts that these bars bridge are not different."
        ),
        notes=notes,
        charts=charts,
    )


def _panel(study: StudyRecord, x: str, y: str) -> Panel:
    pair = {name: study.objectives[name] for name in (x, y)}
    finished = study.ranked
    costs = costs_of([trial.best for trial in finished], pair)
    rows = fronts(costs)[0]
    ahead = sorted((finished[row] for row in rows), key=lambda trial: figure(trial, x))
    stopped = [trial for trial in study.scored if trial.status == "stopped"]
    plain = [trial for trial in finished if not trial.label]
    series: list[Points | Line] = [
        _points(stopped, x, y, "stopped", OTHER, hollow=True),
        _points(plain, x, y, "finished", OTHER),
        _points([trial for trial in finished if trial.label], x, y, "baseline", BASELINE),
        Line([figure(t, x) for t in ahead], [figure(t, y) for t in ahead], "front", GOOD),
    ]
    order, _ = study.ranking
    for position, one in enumerate(order):
        means = [one.mean(name) for name in (x, y)]
        spreads = [np.nan_to_num(one.spread(name)).item() for name in (x, y)]
        color = WINNER if position == 0 else BASELINE if one.baseline else OTHER
        series.append(
            Points(
                means[:1], means[1:], f"{one.name}, confirmed", color, "diamond",
                texts=[f"{one.name}, confirmed"], spread_x=spreads[:1], spread_y=spreads[1:],
            )
        )  # fmt: skip
    across, up = (
        Axis(name, span=readable_span([figure(trial, name) for trial in study.scored], mode))
        for name, mode in pair.items()
    )
    kept = tuple(one for one in series if len(one.x))
    return Panel(f"{y} against {x}", across, up, kept, wide=True, height=440)


def _points(trials: list[TrialState], x: str, y: str, name: str, color: str, hollow: bool = False) -> Points:
    texts = [f"trial {trial.number} {trial.label}".strip() for trial in trials]
    across, up = ([figure(trial, key) for trial in trials] for key in (x, y))
    return Points(across, up, name, color, hollow=hollow, texts=texts)
