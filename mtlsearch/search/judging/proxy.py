"""Proxy fidelity: do the small trainings of a search put configurations in the order of the real ones?

The winners, the baselines and some others at even steps through the ranks are trained once more with the settings of
their full size, and the two orders are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlsearch.search.judging.confirm import Candidate, choose, name_of
from mtlsearch.search.judging.correlation import WEAK, caution, spearman
from mtlsearch.search.plan.figures import is_cost
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.study.pareto import Objectives
from mtlsearch.search.study.study import TrialState
from mtlsearch.search.words import number
from mtlsearch.training.merge import merge


@dataclass(frozen=True)
class Pair:
    """A configuration as the search saw it, and at full size."""

    name: str
    search: TrialState
    full: TrialState


@dataclass(frozen=True)
class Fidelity:
    """How the two orders agree in one objective, over `pairs` configurations."""

    objective: str
    pairs: int
    rho: float
    """Spearman's; NaN with fewer than 4, and where all figures are equal"""
    bounds: tuple[float, float] | None
    """95 % interval of it"""

    @property
    def warning(self) -> str:
        """What to make of it, where it is weak or there is little to go by."""
        words = []
        if self.rho < WEAK:
            words.append(
                f"the search ranks configurations by {number(self.rho)} as their full size does, "
                f"below {WEAK}: what won here need not win there; search nearer to the full size"
            )
        if doubt := caution(self.pairs, self.rho):
            words.append(f"of the configurations at full size {doubt}")
        return f"{self.objective}: {'; '.join(words)}" if words else ""


def choose_pairs(
    searched: Sequence[TrialState], ranked: Sequence[TrialState], settings: SearchSettings
) -> list[Candidate]:
    """Who is trained at full size: who is confirmed, and others at even steps through the ranks down to the last."""
    if settings.proxy is None:
        return []
    chosen = choose(searched, ranked, settings.confirm.top)
    taken = {candidate.trial.number for candidate in chosen}
    rest = [trial for trial in ranked if trial.number not in taken]
    count = min(settings.proxy.spread, len(rest))
    steps = np.linspace(0, len(rest) - 1, count + 1)[1:].round().astype(int) if count else []
    return chosen + [Candidate(name_of(rest[step]), rest[step]) for step in steps]


def full_config(candidate: Candidate, settings: SearchSettings, seed: int) -> dict[str, Any]:
    """The candidate's config at full size."""
    assert settings.proxy is not None
    return {**merge(candidate.trial.config, settings.proxy.full), "seed": seed}


def collect_pairs(trials: Iterable[TrialState], searched: Iterable[TrialState], settings: SearchSettings) -> list[Pair]:
    """Those whose training at the full size of the settings has come to its end."""
    by_name = {name_of(trial): trial for trial in searched}
    found: list[Pair] = []
    if settings.proxy is None:
        return found
    for trial in trials:
        if trial.phase == "full" and trial.status == "finished" and trial.label in by_name:
            candidate = Candidate(trial.label, by_name[trial.label])
            if trial.config == full_config(candidate, settings, trial.config["seed"]):
                found.append(Pair(candidate.name, candidate.trial, trial))
    return found


def fidelity(pairs: Sequence[Pair], objectives: Objectives) -> list[Fidelity]:
    """The agreement in every objective that is not a cost."""
    found = []
    for name in objectives:
        if not is_cost(name):
            figures = [(pair.search.best.get(name, math.nan), pair.full.best.get(name, math.nan)) for pair in pairs]
            table = np.array(figures).reshape(-1, 2)
            table = table[np.isfinite(table).all(axis=1)]
            found.append(Fidelity(name, len(table), *spearman(table[:, 0], table[:, 1])))
    return found
