"""What the trials cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mtlsearch.search.plan.figures import cost_of
from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord, epochs_of, figure, seconds_of
from mtlsearch.search.study.study import PHASES, TrialState
from mtlsearch.search.words import duration, number
from mtlsearch.training.costs import COSTS

_SHOWN = 10


def section(study: StudyRecord) -> Section:
    trained = [trial for trial in study.trials if trial.history]
    machines = {_machine(trial) for trial in trained if trial.environment}
    notes = [f"Measured on {'; '.join(sorted(machines))}."] if machines else []
    return Section(
        key="cost",
        title="Cost",
        reading="Seconds are of training and validation as the trials measured them, with their neighbours running.",
        notes=notes,
        tables=[_by_status(trained), _leading(study)] if trained else [],
    )


def _by_status(trained: list[TrialState]) -> Table:
    rows = []
    for phase, words in PHASES.items():
        for status in ("finished", "stopped", "failed", "running"):
            trials = [trial for trial in trained if trial.phase == phase and trial.status == status]
            if trials:
                rows.append((f"{words}, {status}", *_row(trials)))
    rows.append(("together", *_row(trained)))
    return Table(("trials", "number", "epochs", "training", "validation", "samples/s"), rows)


def _row(trials: list[TrialState]) -> tuple[str, ...]:
    epochs = [row for trial in trials for row in trial.history]
    speeds = [row["time/samples_per_s"] for row in epochs if "time/samples_per_s" in row]
    seconds = [duration(sum(row.get(key, 0.0) for row in epochs)) for key in ("time/train_s", "time/val_s")]
    return str(len(trials)), str(len(epochs)), *seconds, f"{fmean(speeds):,.0f}" if speeds else "–"


def _leading(study: StudyRecord) -> Table:
    """The best finished trials and the baselines."""
    shown = [*study.ranked[:_SHOWN], *(trial for trial in study.ranked[_SHOWN:] if trial.label)]
    columns = [f"cost/{name}" for name in COSTS if any(f"cost/{name}" in trial.best for trial in shown)]
    name = study.settings.first_objective[0]
    rows = []
    for trial in shown:
        speed = [row["time/samples_per_s"] for row in trial.history if "time/samples_per_s" in row]
        rows.append(
            (
                f"trial {trial.number} {trial.label}".strip(),
                number(figure(trial, name)),
                f"{len(trial.history)}/{epochs_of(trial)}",
                duration(seconds_of(trial)),
                f"{fmean(speed):,.0f}" if speed else "–",
                *_cells(trial, columns),
            )
        )
    heading = ("", name, "epochs", "seconds", "samples/s", *(cost_of(column) for column in columns))
    return Table(heading, rows, "The best finished trials and the baselines", folded=True)


def _cells(trial: TrialState, columns: Sequence[str]) -> list[str]:
    return [f"{trial.best[column]:,.0f}" if column in trial.best else "–" for column in columns]


def _machine(trial: TrialState) -> str:
    hardware = trial.environment.get("hardware", {})
    threads = trial.environment.get("threads")
    what = hardware.get("gpu") or hardware.get("cpu") or "an unknown machine"
    return f"{what}, {threads} thread{'' if threads == 1 else 's'} a trial"
