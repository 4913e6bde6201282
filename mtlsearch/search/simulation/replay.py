"""A finished study again, under another early-stopping rule, sampler, budget or number of workers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlsearch.errors import InputError
from mtlsearch.search.early_stopping import make_rule
from mtlsearch.search.plan.settings import GridSampler, Hyperband, SearchSettings
from mtlsearch.search.report.source import StudyRecord, epochs_of, read_study, stage_ends
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.orders import Listed, make_order
from mtlsearch.search.simulation.outcome import Outcome, outcome_of
from mtlsearch.search.simulation.simulator import Run, RunStatus, simulate
from mtlsearch.search.study.stops import stopped_early
from mtlsearch.training.merge import merge
from mtlsearch.training.schema import validate


@dataclass(frozen=True)
class Replay:
    """What a study found, and what it would have found; one outcome for each seed."""

    name: str
    settings: SearchSettings
    """those of the simulated search"""
    sampled: bool
    """whether a sampler decided the order, in the place of the study's own"""
    workers: int
    own: Outcome
    simulated: tuple[Outcome, ...]
    trials: int
    """that can be drawn"""
    censored: int
    """of them, those whose end is not known"""


def replay_study(
    folder: Path,
    *,
    early_stopping: Any = None,
    sampler: Any = None,
    num_samples: int | None = None,
    budget: int | None = None,
    workers: int | None = None,
    seeds: int = 20,
) -> Replay:
    """Simulates the study in `folder`, of which nothing else is needed.

    Args:
        early_stopping, sampler: as in a space file, a name or a mapping; None: the study's own rule, the study's own
            order of trials.
        num_samples: trials; all of the study by default. budget: epochs of all trials together.
        workers: trials at one time; by default as many as the study ran.
        seeds: simulations, where anything depends on a seed: that of a sampler, or Hyperband's brackets.

    Raises:
        InputError: there is no study, it has no trial that says anything, or the settings are none.
    """
    study = read_study(folder)
    curves = curves_of(study)
    if not curves:
        raise InputError(f"{folder} has no trial with an epoch yet, so there is nothing to simulate")
    if num_samples is not None and num_samples > len(curves):
        raise InputError(f"--num-samples {num_samples}: only the study's own trials are known, {len(curves)} of them")
    asked = {"early_stopping": early_stopping, "sampler": sampler}
    settings = _settings(study, {key: value for key, value in asked.items() if value is not None})
    if sampler is not None and isinstance(settings.sampler, GridSampler):
        raise InputError("--sampler grid: a grid has no order but the study's own; leave --sampler out to keep that")
    seeded = sampler is not None or isinstance(settings.early_stopping, Hyperband)
    workers = workers or concurrency(study)
    epochs = max(curve.epochs for curve in curves)
    outcomes = []
    for seed in range(seeds if seeded else 1):
        drawn = settings.model_copy(update={"seed": seed})
        order = Listed(curves) if sampler is None else make_order(curves, study.space, drawn)
        rule = make_rule(drawn, epochs)
        runs = simulate(order, rule, study.objectives, workers=workers, budget=budget, num_samples=num_samples)
        outcomes.append(outcome_of(runs, curves, settings))
    return Replay(
        name=study.name,
        settings=settings,
        sampled=sampler is not None,
        workers=workers,
        own=outcome_of(_own_runs(study, curves), curves, settings),
        simulated=tuple(outcomes),
        trials=len(curves),
        censored=sum(curve.censored for curve in curves),
    )


def curves_of(study: StudyRecord) -> list[Curve]:
    """The trials of a study's search that say anything: those with an epoch, and those that failed in their first."""
    curves = []
    for trial in study.searched:
        failed = trial.status == "failed"
        if not trial.history and not failed:
            continue
        seconds = [row.get("time/train_s", math.nan) + row.get("time/val_s", 0.0) for row in trial.history]
        curves.append(
            Curve(
                number=trial.number,
                point=trial.point,
                rows=[
                    {key: value for key, value in row.items() if key.startswith(("val/", "cost/"))}
                    for row in trial.history
                ],
                epochs=epochs_of(trial),
                label=trial.label,
                failed=failed,
                stage_ends=stage_ends(trial),
                seconds=seconds if all(value > 0 for value in seconds) else (),
            )
        )
    return curves


def concurrency(study: StudyRecord) -> int:
    """The most trials of the search that were between their first epoch and their last at one time."""
    last = {moment.trial.number: place for place, moment in enumerate(study.epochs)}
    under_way: set[int] = set()
    most = 1
    for place, moment in enumerate(study.epochs):
        under_way.add(moment.trial.number)
        most = max(most, len(under_way))
        if last[moment.trial.number] == place:
            under_way.remove(moment.trial.number)
    return most


def _settings(study: StudyRecord, asked: Mapping[str, Any]) -> SearchSettings:
    tree = {**study.settings.model_dump(mode="json"), **asked}
    return validate(SearchSettings, merge(tree, {}), "simulate")


def _own_runs(study: StudyRecord, curves: list[Curve]) -> list[Run]:
    """The study as if it had been simulated: what was still running, or stopped by no rule, is unknown."""
    trials = {trial.number: trial for trial in study.searched}
    runs = []
    for number, curve in enumerate(curves):
        trial = trials[curve.number]
        epochs = len(curve.rows) + (curve.failed and not curve.whole)
        unknown = trial.status == "running" or (trial.status == "stopped" and not stopped_early(trial))
        status: RunStatus = "unknown" if unknown else trial.status
        runs.append(Run(number, curve, epochs, status))
    return runs
