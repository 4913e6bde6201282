"""What a search came to: what it found, what it spent, and what it stopped that was better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtlsearch.search.judging.winner import rank
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.simulator import Run
from mtlsearch.search.study.pareto import Figures, Objectives

#: of the trials whose end is known, the share that a search should not stop
BEST_SHARE = 0.1


@dataclass(frozen=True)
class Outcome:
    """Counts of trials and epochs, and the winner among the trials that ran to their end."""

    begun: int
    finished: int
    stopped: int
    failed: int
    unknown: int
    """would have gone on beyond what is known"""
    epochs: int
    epochs_at_most: int
    """if each of the unknown had gone on to its end"""
    epochs_saved: int
    """that the stopped trials did not take"""
    found: int | None
    """number of the winner in the study"""
    figures: dict[str, float]
    """the winner's objectives; empty without one"""
    better_stopped: int
    """stopped, and known to have ended ahead of the winner"""
    best_stopped: int
    """stopped, of the best tenth of the trials whose end is known"""
    stopped_unknown: int
    """stopped where nobody knows how they would have ended"""


def outcome_of(runs: Sequence[Run], curves: Sequence[Curve], settings: SearchSettings) -> Outcome:
    """curves: all that are known, of which the runs tried some. Better is what the rule for winners ranks first
    (`mtlsearch.search.judging.winner.rank`)."""
    objectives = settings.objectives
    by_status = {status: [run for run in runs if run.status == status] for status in ("finished", "stopped", "unknown")}
    stopped = by_status["stopped"]
    finished = _scored([run.curve for run in by_status["finished"]], objectives)
    ended = _scored([run.curve for run in stopped], objectives)
    order = _ranked(finished, settings)
    together = _ranked(finished + ended, settings)
    known = _ranked(_scored(curves, objectives), settings)
    best = set(known[: math.ceil(BEST_SHARE * len(known))])
    winner = order[0] if order else None
    ahead = together[: together.index(winner)] if winner is not None else together
    epochs = sum(run.epochs for run in runs)
    return Outcome(
        begun=len(runs),
        finished=len(by_status["finished"]),
        stopped=len(stopped),
        failed=sum(run.status == "failed" for run in runs),
        unknown=len(by_status["unknown"]),
        epochs=epochs,
        epochs_at_most=epochs + sum(run.curve.epochs - run.epochs for run in by_status["unknown"]),
        epochs_saved=sum(run.curve.epochs - run.epochs for run in stopped),
        found=winner,
        figures=_objectives_of(next(curve for curve in finished if curve.number == winner), objectives)
        if winner is not None
        else {},
        better_stopped=len(ahead),
        best_stopped=len(best & {run.curve.number for run in stopped}),
        stopped_unknown=sum(run.curve.censored for run in stopped),
    )


def _scored(curves: Sequence[Curve], objectives: Objectives) -> list[Curve]:
    """Those whose end is known, with a finite figure for every objective."""
    return [
        curve
        for curve in curves
        if curve.whole
        and not curve.failed
        and all(math.isfinite(value) for value in _objectives_of(curve, objectives).values())
    ]


def _ranked(curves: Sequence[Curve], settings: SearchSettings) -> list[int]:
    figures: dict[int, Figures] = {curve.number: _objectives_of(curve, settings.objectives) for curve in curves}
    order, _ = rank(figures, [curve.number for curve in curves if curve.label], settings.objectives, settings.winner)
    return order


def _objectives_of(curve: Curve, objectives: Objectives) -> dict[str, float]:
    best = curve.best(curve.epochs, objectives)
    return {name: best.get(name, math.nan) for name in objectives}
