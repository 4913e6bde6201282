"""Confirmation: candidates and baselines again, on fresh seeds, whole, and the test split scored once.

What a search reports of its winner is the luckiest of many noisy figures. The same seeds serve every candidate, so
that differences are paired.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mtlsearch.search.judging.winner import rank
from mtlsearch.search.plan.figures import is_constant, is_cost, metric_of
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.study.study import TrialState, trial_folder
from mtlsearch.search.words import number
from mtlsearch.training.sample_scores import SCORES, Scores, scores_or_none
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
    scores: tuple[Scores, ...] = ()
    """of each run's samples; empty mappings where the problem does not give them, or their file is damaged"""

    @property
    def complete(self) -> bool:
        """Whether every run came to its end."""
        return bool(self.runs) and all(run.status == "finished" for run in self.runs)

    @property
    def why_incomplete(self) -> str:
        """What became of a run that did not come to its end; "" where all did."""
        return next((f"{run.status} ({run.reason})" for run in self.runs if run.status != "finished"), "")

    def values(self, name: str, split: str = "val") -> list[float]:
        """An objective's figure per run: the best epoch's on validation, its weights' on test; a cost has no split.
        NaN for a run that failed."""
        if split == "test" and not is_cost(name):
            return [run.test.get(metric_of(name), math.nan) for run in self.runs]
        return [run.best.get(name, math.nan) for run in self.runs]

    def mean(self, name: str, split: str = "val") -> float:
        return fmean(self.values(name, split))

    def spread(self, name: str, split: str = "val") -> float:
        values = self.values(name, split)
        return stdev(values) if len(values) > 1 else math.nan

    def in_words(self, name: str, split: str = "val") -> str:
        """Mean ± standard deviation; a size is the same in every run."""
        mean = number(self.mean(name, split))
        return mean if is_constant(name) else f"{mean} ± {number(self.spread(name, split))}"


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


def collect(
    trials: Iterable[TrialState], candidates: Sequence[Candidate], seeds: Sequence[int], study: Path
) -> list[Confirmed]:
    """The candidates with their runs among `trials`, those of the same seeds in the same places.

    study: the folder of the study, where the figures of each sample lie.
    """
    by_seed = {(trial.label, trial.config["seed"]): trial for trial in trials if trial.phase == "confirm"}
    found = []
    for candidate in candidates:
        runs = tuple(by_seed[candidate.name, seed] for seed in seeds if (candidate.name, seed) in by_seed)
        scores = tuple(scores_or_none(trial_folder(study, run.number) / SCORES) for run in runs)
        found.append(Confirmed(candidate.name, bool(candidate.trial.label), candidate.trial, runs, scores))
    return found


def ranking(confirmed: Sequence[Confirmed], settings: SearchSettings) -> tuple[list[Confirmed], str]:
    """The confirmed from best to worst by their validation means, and the rule; one with a failed run takes no part."""
    figures = {
        position: {name: one.mean(name) for name in settings.objectives}
        for position, one in enumerate(confirmed)
        if one.complete
    }
    baselines = [position for position in figures if confirmed[position].baseline]
    order, rule = rank(figures, baselines, settings.objectives, settings.winner)
    return [confirmed[position] for position in order], rule


def columns(objectives: Iterable[str]) -> list[tuple[str, str]]:
    """(split, objective) of every figure of a confirmation: both splits of the metrics, then the costs."""
    names = list(objectives)
    metrics = [(split, name) for split in ("val", "test") for name in names if not is_cost(name)]
    return metrics + [("", name) for name in names if is_cost(name)]


def heading_of(split: str, name: str) -> str:
    """What a table calls such a figure: "test/nme", "cost/macs"."""
    return f"{split}/{metric_of(name)}" if split else name


def certainty(seeds: int) -> str:
    """How much so many seeds can say."""
    if seeds < ENOUGH_SEEDS:
        return (
            f"{seeds} seeds show values and settle nothing: below {ENOUGH_SEEDS} no winner is claimed beyond the search"
        )
    return f"intervals of 95 %, by the bootstrap over {seeds} training seeds and, where they are scored, over samples"


def confirmation_csv(confirmed: Sequence[Confirmed], trivial: Mapping[str, Mapping[str, float]]) -> str:
    """Every confirmation run's validation and test metrics, and those of the constant prediction."""
    metrics = sorted(trivial["val"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [f"{split}/{metric}" for split in ("val", "test") for metric in metrics]
    writer.writerow(["name", "baseline", "seed", "trial", "status", *figures])
    for one in confirmed:
        for position, run in enumerate(one.runs):
            own = [one.values(f"val/{metric}", split)[position] for split in ("val", "test") for metric in metrics]
            writer.writerow([one.name, one.baseline, run.config["seed"], run.number, run.status, *own])
    constant = [trivial[split][metric] for split in ("val", "test") for metric in metrics]
    writer.writerow(["constant prediction", "", "", "", "", *constant])
    return text.getvalue()
