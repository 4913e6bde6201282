"""Confirmation: candidates and baselines again, on fresh seeds, whole, and the test split scored once.

What a search reports of its winner is the luckiest of many noisy figures. The same seeds serve every candidate, so
that differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from mtlsearch.search.study import TrialState
from mtlsearch.search.winner import rank
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
    trial: TrialState
    """of the search"""
    runs: tuple[TrialState, ...]

    @property
    def complete(self) -> bool:
        """Whether every run came to its end."""
        return bool(self.runs) and all(run.status == "finished" for run in self.runs)

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


@dataclass(frozen=True)
class Comparison:
    """One candidate against another on one figure, paired by seed."""

    metric: str
    split: str
    by_seed: tuple[float, ...]
    """the one's figures less the other's"""
    bounds: tuple[float, float] | None
    """95 % interval of the mean; None with too few seeds to claim anything"""

    @property
    def mean(self) -> float:
        return fmean(self.by_seed)

    @property
    def tied(self) -> bool:
        """Whether the interval admits no difference."""
        return self.bounds is not None and self.bounds[0] <= 0 <= self.bounds[1]


def name_of(trial: TrialState) -> str:
    """What a trial of the search is called as a candidate, and its confirmation runs by."""
    return trial.label or f"trial {trial.number}"


def choose(searched: Iterable[TrialState], ranked: Sequence[TrialState], top: int) -> list[Candidate]:
    """The `top` of the ranked trials of the search, and the baselines where they are not among them."""
    chosen = [Candidate(name_of(trial), trial) for trial in ranked[:top]]
    names = {candidate.name for candidate in chosen}
    for trial in searched:
        if trial.label and trial.label not in names:
            chosen.append(Candidate(trial.label, trial))
    return chosen


def fresh_seeds(study_seed: int, count: int) -> list[int]:
    """Seeds that no trial of the search had."""
    return [derive_seed(study_seed, "confirm", position) % 2**31 for position in range(count)]


def collect(trials: Iterable[TrialState], candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[Confirmed]:
    """The candidates with their runs among `trials`, those of the same seeds in the same places."""
    runs = {(trial.label, trial.config["seed"]): trial for trial in trials if trial.phase == "confirm"}
    return [
        Confirmed(
            candidate.name,
            bool(candidate.trial.label),
            candidate.trial,
            tuple(runs[candidate.name, seed] for seed in seeds if (candidate.name, seed) in runs),
        )
        for candidate in candidates
    ]


def ranking(confirmed: Sequence[Confirmed], objectives: Mapping[str, str]) -> tuple[list[Confirmed], str]:
    """The confirmed from best to worst by their validation means, and the rule; one with a failed run takes no part."""
    figures = {
        position: {name: one.mean(name.removeprefix("val/")) for name in objectives}
        for position, one in enumerate(confirmed)
        if one.complete
    }
    order, rule = rank(figures, [position for position in figures if confirmed[position].baseline], objectives)
    return [confirmed[position] for position in order], rule


def paired_difference(one: Confirmed, other: Confirmed, metric: str, split: str) -> np.ndarray:
    """(seeds,) figures of `one` less those of `other` on the same seeds."""
    return np.array(one.values(metric, split)) - np.array(other.values(metric, split))


def compare(one: Confirmed, other: Confirmed, objectives: Iterable[str]) -> list[Comparison]:
    """`one` against `other` on every objective, on validation and on test."""
    found = []
    for name in objectives:
        metric = name.removeprefix("val/")
        for split in ("val", "test"):
            differences = paired_difference(one, other, metric, split)
            found.append(Comparison(metric, split, tuple(differences.tolist()), interval(differences)))
    return found


def interval(differences: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean difference over seeds, by Student's t; None with too few seeds to claim anything."""
    if len(differences) < ENOUGH_SEEDS or not np.isfinite(differences).all():
        return None
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    from scipy import stats  # half a second to import, and needed once, at the end

    bounds = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return float(bounds.low), float(bounds.high)


def certainty(seeds: int) -> str:
    """How much so many seeds can say."""
    if seeds < ENOUGH_SEEDS:
        return (
            f"{seeds} seeds show values and settle nothing: below {ENOUGH_SEEDS} no winner is claimed beyond the search"
        )
    return f"intervals are over {seeds} training seeds; the images of the splits are the same for all"
