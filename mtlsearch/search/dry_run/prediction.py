"""From what a few configurations cost to what a study will: arithmetic, no work."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, repeat
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mtlsearch.search.early_stopping import make_rule
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.training.rehearsal import Rehearsal

#: trials that are simulated for the share of epochs that early stopping leaves: of several searches, or a part of one
_SIMULATED = 200


class Affordable(NamedTuple):
    """Trials that a budget is enough for."""

    begun: int
    ended: int
    """of these, before it is used up"""


@dataclass(frozen=True)
class Prediction:
    """Seconds of a study's phases; of a search with early stopping as expected and without."""

    trial_s: float
    """a sampled trial, on average over those that were timed, with early stopping"""
    whole_trial_s: float
    """the same to its last epoch"""
    share: float
    """of the sampled trials' epochs, what early stopping is expected to leave"""
    search_s: float
    whole_search_s: float
    confirm_s: float
    full_s: float
    affordable: Affordable | None
    """of the trials asked for, with early stopping; None without a budget"""
    affordable_whole: Affordable | None

    @property
    def study_s(self) -> float:
        """All phases, with early stopping."""
        return self.search_s + self.confirm_s + self.full_s

    @property
    def most_s(self) -> float:
        """All phases, without."""
        return self.whole_search_s + self.confirm_s + self.full_s


def predict(
    settings: SearchSettings,
    baselines: Sequence[Rehearsal],
    sampled: Sequence[Rehearsal],
    full: tuple[Sequence[Rehearsal], Sequence[Rehearsal]],
    lanes: int,
    gpus: float = 0.0,
) -> Prediction:
    """What a study takes whose sampled trials are like `sampled` in equal shares; where none is given, like baselines.

    full: of the baselines and of others at the proxy's full size; lanes: trials that run at one time without slowing
    each other down; gpus: of all trials that run at one time.
    """
    count = settings.num_samples - len(baselines)
    sampled = sampled or baselines
    survival = expected_survival(settings, [one.epochs for one in sampled], [one.epochs for one in baselines], count)
    stopped = [one.training_s(survival[: one.epochs]) for one in sampled]
    whole = [one.training_s() for one in sampled]
    first = [one.training_s() for one in baselines]
    again = [fmean(map(_scored_s, sampled))] * settings.confirm.top + [_scored_s(one) for one in baselines]
    budget = budget_s(settings, gpus)

    def affordable(seconds: Sequence[float]) -> Affordable | None:
        durations = [*first, *repeat(fmean(seconds), count)]
        return None if budget is None else affordable_trials(durations, budget, lanes)

    return Prediction(
        trial_s=fmean(stopped),
        whole_trial_s=fmean(whole),
        share=sum(map(sum, (survival[: one.epochs] for one in sampled))) / sum(one.epochs for one in sampled),
        search_s=makespan([*first, *islice(cycle(stopped), count)], lanes),
        whole_search_s=makespan([*first, *islice(cycle(whole), count)], lanes),
        confirm_s=makespan(again * settings.confirm.seeds, lanes),
        full_s=makespan(_full_size(settings, *full), lanes),
        affordable=affordable(stopped),
        affordable_whole=affordable(whole),
    )


def _scored_s(one: Rehearsal) -> float:
    """A run of the confirmation: its weights are scored on both splits, as a whole on test and sample by sample."""
    return one.training_s() + one.whole.val_s + 2 * one.test_s


def _full_size(settings: SearchSettings, baselines: Sequence[Rehearsal], others: Sequence[Rehearsal]) -> list[float]:
    if settings.proxy is None or not (baselines or others):
        return []
    other = fmean(one.training_s() for one in others or baselines)
    return [*(one.training_s() for one in baselines), *[other] * (settings.confirm.top + settings.proxy.spread)]


def budget_s(settings: SearchSettings, gpus: float) -> float | None:
    """Seconds of a search that its budgets allow; None without one. gpus: of all trials that run at one time."""
    limits = [] if settings.time_budget_s is None else [settings.time_budget_s]
    if settings.gpu_hours is not None and gpus:
        limits.append(3600 * settings.gpu_hours / gpus)
    return min(limits, default=None)


def makespan(durations: Iterable[float], lanes: int) -> float:
    """Until the last of these is done, each begun in its turn as soon as one of so many lanes is free."""
    free = [0.0] * lanes
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def affordable_trials(durations: Iterable[float], budget: float, lanes: int) -> Affordable:
    """Those of trials of so many seconds that begin, and that end, before `budget` seconds are over."""
    begun, ended, free = 0, 0, [0.0] * lanes
    for duration in durations:
        if free[0] >= budget:
            break
        begun, ended = begun + 1, ended + (free[0] + duration <= budget)
        heapq.heapreplace(free, free[0] + duration)
    return Affordable(begun, ended)


def expected_survival(
    settings: SearchSettings, sampled: Sequence[int], baselines: Sequence[int], count: int
) -> list[float]:
    """For each epoch, in what share of the sampled trials that are as long early stopping lets it happen, where every
    trial is as likely as another to be among the best. sampled, baselines: their epochs.

    The search's own rule judges `count` sampled trials one after the other, after the baselines, which it never stops.
    Ranks are drawn evenly, and a trial keeps its own from the first epoch to the last.
    """
    rng = np.random.default_rng(0)
    count = max(1, min(count, _SIMULATED))
    ran, due = np.zeros(max(sampled)), np.zeros(max(sampled))
    for _ in range(_SIMULATED // count):
        rule = make_rule(settings, max(*sampled, *baselines, 1))
        for number, epochs in enumerate([*baselines, *islice(cycle(sampled), count)]):
            figures = dict(zip(settings.objectives, rng.random(len(settings.objectives)).tolist()))
            exempt = number < len(baselines)
            epoch = 1
            while epoch < epochs and (not rule.stops(number, epoch, figures) or exempt):
                epoch += 1
            if not exempt:
                ran[:epoch] += 1
                due[:epochs] += 1
    shares: list[float] = (ran / due).tolist()
    return shares
