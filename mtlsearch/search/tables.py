"""The study on the screen: a table while it runs, plain lines where there is no terminal, tables at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mtlsearch.search.judging.confirm import Confirmed, columns, heading_of
from mtlsearch.search.plan.figures import metric_of
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.study.study import TrialState
from mtlsearch.search.words import number

_MARKS = {"running": "…", "finished": "✓", "stopped": "✂", "failed": "✗"}


class TrialTable:
    """Observes a study and shows its trials."""

    def __init__(self, console: Console, plan: SearchPlan, trials: Mapping[int, TrialState]) -> None:
        self._console, self._plan, self._trials = console, plan, trials
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> TrialTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def epoch_ended(self, trial: TrialState) -> None:
        if self._live is not None:
            self._live.update(self._table())

    def trial_ended(self, trial: TrialState) -> None:
        if self._live is not None:
            self._live.update(self._table())
        else:
            self._console.print(self._line(trial), highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Table:
        return trial_table(self._plan, list(self._trials.values())[-40:])

    def _line(self, trial: TrialState) -> str:
        what = "trial" if trial.phase == "search" else trial.phase
        name = f"{what} {trial.number}" + (f" ({trial.label})" if trial.label else "")
        figures = "  ".join(
            f"{metric_of(key)} {number(trial.best.get(key, math.nan))}" for key in self._plan.settings.objectives
        )
        axes = " ".join(choices(trial).values()) if trial.phase == "search" else ""
        end = f"  [{trial.reason}]" if trial.reason else ""
        return f"{name}: {trial.status}  {figures}  best epoch {trial.best_epoch}/{len(trial.history)}  {axes}{end}"


def choices(trial: TrialState) -> dict[str, str]:
    """The trial's chosen options by the last word of their key: what tells trials apart at a glance."""
    return {key.rpartition(".")[2]: value for key, value in trial.point.items() if isinstance(value, str)}


def trial_table(plan: SearchPlan, trials: Sequence[TrialState], title: str | None = None) -> Table:
    axes = list(dict.fromkeys(key for trial in trials for key in choices(trial)))
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True, min_width=5)
    table.add_column("", no_wrap=True, min_width=1)
    for name in plan.settings.objectives:
        table.add_column(metric_of(name), justify="right", no_wrap=True, min_width=7)
    table.add_column("epochs", justify="right", no_wrap=True, min_width=6)
    for axis in axes:
        table.add_column(axis, overflow="ellipsis", no_wrap=True)  # what gives way on a narrow screen
    table.add_column("note", overflow="ellipsis", no_wrap=True, min_width=5)
    for trial in trials:
        figures = [number(trial.best.get(name, math.nan)) for name in plan.settings.objectives]
        words = [choices(trial).get(axis, "") for axis in axes]
        total = trial.config["training"]["epochs"]
        note = trial.label or (trial.reason if trial.status == "failed" else "")
        table.add_row(str(trial.number), _MARKS[trial.status], *figures, f"{len(trial.history)}/{total}", *words, note)
    return table


def confirmation_table(
    plan: SearchPlan, confirmed: Sequence[Confirmed], trivial: Mapping[str, Mapping[str, float]]
) -> Table:
    """Every candidate on every objective, validation and test: mean over seeds ± standard deviation."""
    shown = columns(plan.settings.objectives)
    seeds = len(confirmed[0].runs)
    table = Table(
        title=f"Confirmed on {seeds} fresh seeds, mean ± standard deviation",
        title_justify="left", header_style="bold", box=None, pad_edge=False,
    )  # fmt: skip
    table.add_column("")
    for split, name in shown:
        table.add_column(heading_of(split, name), justify="right")
    for one in confirmed:
        cells = [one.in_words(name, split) for split, name in shown]
        table.add_row(f"{one.name} (baseline)" if one.baseline else one.name, *cells)
    cells = [number(trivial.get(split, {}).get(metric_of(name), math.nan)) for split, name in shown]
    table.add_row("constant prediction", *cells, style="dim")
    return table


def difference_lines(plan: SearchPlan, winner: Confirmed, other: Confirmed) -> list[str]:
    """The winner against another, paired by seed, one line per objective and split."""
    from mtlsearch.search.judging.comparison import compare  # scipy.stats takes half a second to import

    lines = []
    for one in compare(winner, other, plan.settings.objectives):
        each = ", ".join(number(value, signed=True) for value in one.by_seed)
        words = f"{one.figure}: {winner.name} − {other.name} = {number(one.mean, signed=True)} (by seed: {each})"
        if one.bounds is not None:
            low, high = (number(bound, signed=True) for bound in one.bounds)
            words += f", 95 % interval over {one.over} [{low}, {high}]{', tied' if one.tied else ''}"
        lines.append(words)
    return lines
