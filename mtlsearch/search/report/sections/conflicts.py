"""How the tasks' gradients stood to each other, strategy by strategy."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean

from mtlsearch.search.report.chart import Axis, Chart, Heat, Panel
from mtlsearch.search.report.section import Section
from mtlsearch.search.report.source import StudyRecord
from mtlsearch.search.study.study import TrialState
from mtlsearch.training.conflicts import PREFIX, pair_of

#: epochs that get a column of their own; more are gathered
_COLUMNS = 30


def section(study: StudyRecord) -> Section:
    by_strategy: defaultdict[str, list[TrialState]] = defaultdict(list)
    for trial in study.trials:
        if trial.history:
            by_strategy[strategy_of(trial)].append(trial)
    panels, blind = [], []
    for strategy, trials in sorted(by_strategy.items()):
        pairs = {key for trial in trials for row in trial.history for key in row if key.startswith(PREFIX)}
        if pairs:
            panels.append(_panel(strategy, trials, sorted(pairs)))
        else:
            blind.append(strategy)
    notes = []
    if blind:
        notes.append(
            f"Not seen: {', '.join(blind)}. A strategy that weighs losses never looks at the gradients of single "
            "tasks, and a look would have cost another backward for each task."
        )
    if not by_strategy:
        notes.append("No epoch has ended.")
    return Section(
        key="conflicts",
        title="Gradient conflicts",
        reading=(
            "Mean cosine between the gradients of two tasks on the shared parameters, by epoch, over the strategy's "
            "trials: red pairs pull apart, blue ones together; where nothing is red, there was no conflict to resolve."
        ),
        notes=notes,
        charts=[Chart("conflicts", "Mean cosines of task gradients", tuple(panels))] if panels else [],
    )


def strategy_of(trial: TrialState) -> str:
    strategy = trial.config.get("strategy")
    return str(strategy.get("name", "?")) if isinstance(strategy, dict) else "?"


def _panel(strategy: str, trials: list[TrialState], pairs: list[str]) -> Panel:
    epochs = max(len(trial.history) for trial in trials)
    gathered = math.ceil(epochs / _COLUMNS)
    starts = range(0, epochs, gathered)
    values = [[_mean(trials, pair, start, start + gathered) for start in starts] for pair in pairs]
    rows = tuple((float(row), " and ".join(pair_of(pair))) for row, pair in enumerate(pairs))
    labels = [str(start + 1) if gathered == 1 else f"{start + 1}–{min(epochs, start + gathered)}" for start in starts]
    every = math.ceil(len(labels) / 8)
    columns = tuple((float(place), label) for place, label in enumerate(labels) if place % every == 0)
    count = f"{len(trials)} trial{'s' if len(trials) > 1 else ''}"
    heat = Heat(values, "mean cosine")
    axes = Axis("epoch", ticks=columns), Axis(ticks=rows)
    return Panel(f"{strategy}, {count}", *axes, (heat,), height=130 + 30 * len(rows))


def _mean(trials: list[TrialState], pair: str, start: int, end: int) -> float:
    seen = [row[pair] for trial in trials for row in trial.history[start:end] if pair in row]
    return fmean(seen) if seen else math.nan
