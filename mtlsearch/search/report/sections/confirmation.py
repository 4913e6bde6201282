"""The winner beside the baselines, on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtlsearch.search.judging.comparison import Comparison, compare
from mtlsearch.search.judging.confirm import ENOUGH_SEEDS, Confirmed, certainty, columns, heading_of
from mtlsearch.search.judging.winner import pareto_front
from mtlsearch.search.plan.figures import is_constant
from mtlsearch.search.report.chart import BASELINE, OTHER, WINNER, Axis, Chart, Panel, Points
from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.tables import choices
from mtlsearch.search.words import number

_SHOWN = 10


def section(study: StudyRecord) -> Section:
    order, rule = study.ranking
    if not order:
        return _unconfirmed(study)
    winner, seeds = order[0], len(order[0].runs)
    notes = [f"Winner: {winner.name}, by the means over the fresh seeds: {rule}.", f"{certainty(seeds)}.".capitalize()]
    notes += [
        f"{one.name} takes no part: a run failed ({next(run.reason for run in one.runs if run.status != 'finished')})."
        for one in study.confirmed
        if not one.complete
    ]
    return Section(
        key="confirmation",
        title="The winner beside the baselines",
        reading=(
            "Every candidate was trained again, whole, on the same seeds that no trial of the search had; means ± "
            "standard deviations over these seeds; the test split was scored here only, and chose nothing."
        ),
        notes=notes,
        tables=[_means(study, order), *_differences(study, order), _leading(study, folded=True)],
        charts=[_chart(study, order)],
    )


def _unconfirmed(study: StudyRecord) -> Section:
    notes = ["Not confirmed: nothing below says more than what the search saw, each figure the luckiest of its kind."]
    if begun := [one for one in study.confirmed if one.runs]:
        ended = (f"{one.name} {sum(run.status != 'running' for run in one.runs)}" for one in begun)
        notes.append(f"Confirmation runs that have ended: {', '.join(ended)}.")
    if not study.ranked:
        notes = ["No trial ran to its end with finite figures: there is no winner."]
    return Section(
        key="confirmation",
        title="The winner beside the baselines",
        reading="Figures of single trainings, best first by the study's rule.",
        notes=notes,
        tables=[_leading(study, folded=False)] if study.ranked else [],
    )


def _means(study: StudyRecord, order: Sequence[Confirmed]) -> Table:
    shown = columns(study.objectives)
    rows = []
    for one in [*order, *(one for one in study.confirmed if not one.complete)]:
        cells = [one.in_words(name, split) for split, name in shown]
        rows.append((f"{one.name} (baseline)" if one.baseline else one.name, *cells))
    if study.constant:
        cells = [number(study.constant.get(heading_of(split, m), math.nan)) for split, m in shown]
        rows.append(("constant prediction", *cells))
    caption = f"Means ± standard deviations over {len(order[0].runs)} fresh seeds"
    return Table(("", *(heading_of(split, m) for split, m in shown)), rows, caption)


def _differences(study: StudyRecord, order: Sequence[Confirmed]) -> list[Table]:
    winner = order[0]
    rows = []
    for other in order[1:]:
        for one in compare(winner, other, study.objectives):
            each = "" if is_constant(one.figure) else ", ".join(number(value, signed=True) for value in one.by_seed)
            cells = f"{winner.name} − {other.name}", one.figure, number(one.mean, signed=True)
            rows.append((*cells, _interval(one), each))
    heading = ("difference", "figure", "mean", "95 % interval", "by seed")
    return [Table(heading, rows, "Differences, paired by seed", words=2)] if rows else []


def _interval(one: Comparison) -> str:
    if one.bounds is None:
        return "too few seeds" if len(one.by_seed) < ENOUGH_SEEDS else "–"
    bounds = f"[{number(one.bounds[0], signed=True)}, {number(one.bounds[1], signed=True)}]"
    return f"{bounds} over {one.over}{', tied' if one.tied else ''}"


def _leading(study: StudyRecord, folded: bool) -> Table:
    front = set(pareto_front({t.number: t.best for t in study.ranked}, study.objectives))
    rows = []
    for trial in study.ranked[:_SHOWN]:
        what = ", ".join([*([trial.label] if trial.label else []), *choices(trial).values()])
        mark = "yes" if trial.number in front else ""
        cells = [number(figure(trial, name)) for name in study.objectives]
        rows.append((str(trial.number), what, mark, *cells, f"{trial.best_epoch}/{len(trial.history)}"))
    heading = ("trial", "what", "front", *study.objectives, "best epoch")
    return Table(heading, rows, "The best finished trials of the search", folded, words=3)


def _chart(study: StudyRecord, order: Sequence[Confirmed]) -> Chart:
    names = tuple((float(-row), one.name) for row, one in enumerate(order))
    panels = []
    for split, name in columns(study.objectives):
        series = []
        for row, one in enumerate(order):
            color = WINNER if row == 0 else BASELINE if one.baseline else OTHER
            values = one.values(name, split)
            seeds = [f"{one.name}, seed {run.config.get('seed')}" for run in one.runs]
            series.append(Points(values, [-row] * len(values), "", color, hollow=True, texts=seeds))
            mean = Points([one.mean(name, split)], [-row], "", color, "diamond", texts=[f"{one.name}, mean"])
            series.append(mean)
        title = heading_of(split, name)
        panels.append(Panel(title, Axis(title), Axis(ticks=names), tuple(series), height=120 + 40 * len(order)))
    return Chart("confirmation", "Each seed (rings) and the mean (diamond)", tuple(panels))
