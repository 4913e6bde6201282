"""Whether the search says anything about the training at full size."""

from __future__ import annotations

from mtlsearch.search.judging.proxy import Pair, collect_pairs, fidelity
from mtlsearch.search.report.chart import BASELINE, OTHER, WINNER, Axis, Chart, Panel, Points
from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.words import number


def section(study: StudyRecord) -> Section:
    pairs = collect_pairs(study.trials, study.searched, study.settings)
    notes, warnings, tables, charts = [], [], [], []
    if study.settings.proxy is None:
        notes.append("Not asked for: with `search: {proxy: {full: {…}}}` winners, baselines and others are trained so.")
    elif not pairs:
        notes.append("No training at full size has come to its end.")
    else:
        agreement = fidelity(pairs, study.objectives)
        warnings = [f"{one.warning}." for one in agreement if one.warning]
        rows = [
            (one.objective, str(one.pairs), number(one.rho), "–" if one.bounds is None else _interval(one.bounds))
            for one in agreement
        ]
        tables = [Table(("figure", "configurations", "Spearman's ρ", "95 % interval"), rows), _figures(study, pairs)]
        names = [one.objective for one in agreement]
        charts = [Chart("proxy", "At full size against in the search", tuple(_panel(study, pairs, n) for n in names))]
    return Section(
        key="proxy",
        title="Search size against full size",
        reading=(
            "The same configurations as the search trained them and at their full size: where the points do not rise "
            "from left to right, the small training says little about the real one."
        ),
        notes=notes,
        warnings=warnings,
        tables=tables,
        charts=charts,
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"[{number(bounds[0])}, {number(bounds[1])}]"


def _figures(study: StudyRecord, pairs: list[Pair]) -> Table:
    names = list(study.metrics)
    rows = [
        (pair.name, *(number(figure(trial, name)) for name in names for trial in (pair.search, pair.full)))
        for pair in pairs
    ]
    heading = ("", *(f"{name}, {size}" for name in names for size in ("search", "full")))
    return Table(heading, rows, "Best epochs of single trainings", folded=True)


def _panel(study: StudyRecord, pairs: list[Pair], name: str) -> Panel:
    winner = study.winner
    series = []
    for pair in pairs:
        won = winner is not None and pair.search.number == winner.number
        color = WINNER if won else BASELINE if pair.search.label else OTHER
        point = [figure(pair.search, name)], [figure(pair.full, name)]
        series.append(Points(*point, "", color, texts=[pair.name]))
    return Panel(name, Axis(f"{name} in the search"), Axis("at full size"), tuple(series))
