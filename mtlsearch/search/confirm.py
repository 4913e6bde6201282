"""Confirmation: candidates and baselines again, on fresh seeds, whole, and the test split scored once.

What a search reports of its winner is the luckiest of many noisy figures. The same seeds serve every candidate, so
that differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

from mtlsearch.search.study import Study, TrialState
from mtlsearch.search.winner import better_baseline
from mtlsearch.training.seeding import derive_seed

#: below this many seeds values are printed and nothing is claimed
ENOUGH_SEEDS = 5


@dataclass(frozen=True)
class Candidate:
    """A configuration to be confirmed: the search trial it comes from, and what to call it."""

    name: str
    trial: TrialState


@dataclass(frozen=True)
class Confirmed:
    """A candidate's runs, in the order of the seeds."""

    name: str
    baseline: bool
    runs: tuple[TrialState, ...]

    def values(self, metric: str, split: str = "val") -> list[float]:
        """One figure per run: best epoch's on validation, its weights' on test. NaN for a run that failed."""
        if split == "test":
            return [run.test.get(metric, math.nan) for run in self.runs]
        return [run.best.get(f"val/{metric}", math.nan) for run in self.runs]

    def mean(self, metric: str, split: str = "val") -> float:
        return fmean(self.values(metric, split))

    def spread(self, metric: str, split: str = "val") -> float:
        values = self.values(metric, split)
        return stdev(values) if len(values) > 1 else math.nan


def choose(study: Study, ranked: Sequence[TrialState]) -> list[Candidate]:
    """The top candidates of the search, and the baselines where they are not among them."""
    top = list(ranked[: study.plan.settings.confirm.top])
    chosen = [Candidate(trial.label or f"trial {trial.number}", trial) for trial in top]
    names = {candidate.name for candidate in chosen}
    for trial in study.of_phase("search"):
        if trial.label and trial.label not in names:
            chosen.append(Candidate(trial.label, trial))
    return chosen


def fresh_seeds(study_seed: int, count: int) -> list[int]:
    """Seeds that no trial of the search had."""
    return [derive_seed(study_seed, "confirm", position) % 2**31 for position in range(count)]


def collect(study: Study, candidates: Sequence[Candidate]) -> list[Confirmed]:
    runs = study.of_phase("confirm")
    return [
        Confirmed(
            candidate.name,
            bool(candidate.trial.label),
            tuple(run for run in runs if run.label == candidate.name),
        )
        for candidate in candidates
    ]


def reference(confirmed: Sequence[Confirmed], objectives: dict[str, str]) -> Confirmed | None:
    """The better of the confirmed baselines, by their validation means."""
    figures = {
        position: {name: one.mean(name.removeprefix("val/")) for name in objectives}
        for position, one in enumerate(confirmed)
        if one.baseline
    }
    best = better_baseline(figures, objectives)
    return None if best is None else confirmed[best]


def paired_difference(one: Confirmed, other: Confirmed, metric: str, split: str) -> np.ndarray:
    """(seeds,) figures of `one` less those of `other` on the same seeds."""
    return np.array(one.values(metric, split)) - np.array(other.values(metric, split))


def interval(differences: np.ndarray) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean difference; None with too few seeds to claim anything."""
    if len(differences) < ENOUGH_SEEDS or not np.isfinite(differences).all():
        return None
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    result = stats.bootstrap((differences,), np.mean, method="BCa", rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
