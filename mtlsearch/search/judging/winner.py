"""Which trial won, by a rule that is stated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from mtlsearch.search.plan.settings import FirstObjective, MeanRatio, WinnerRule, Within
from mtlsearch.search.study.pareto import Figures, Objectives, cost, costs_of, fronts
from mtlsearch.search.study.study import TrialState

T = TypeVar("T")
_DEFAULT = MeanRatio()


def pareto_front(figures: Mapping[T, Figures], objectives: Objectives) -> list[T]:
    """The keys whose figures no other's dominate."""
    keys = list(figures)
    return [keys[row] for row in fronts(costs_of(list(figures.values()), objectives))[0]] if keys else []


def mean_ratio(figures: Figures, reference: Figures, objectives: Objectives) -> float:
    """Geometric mean over objectives of own to reference: below 1 is better, whatever the units.

    An objective to be maximised counts by its inverse ratio. All figures must be positive.
    """
    logs = []
    for name, mode in objectives.items():
        logs.append(math.log(figures[name] / reference[name]) * (1 if mode == "min" else -1))
    return math.exp(sum(logs) / len(logs))


def rank(
    figures: Mapping[T, Figures], baselines: Collection[T], objectives: Objectives, rule: WinnerRule = _DEFAULT
) -> tuple[list[T], str]:
    """The keys from best to worst, and the rule by which, in words.

    By mean ratio to the better baseline, those of the Pareto front come first; where there is no baseline, or where
    ratios say nothing because a figure is not positive, the first objective decides instead.
    """
    first, mode = next(iter(objectives.items()))
    costs = {key: cost(own[first], mode) for key, own in figures.items()}
    if isinstance(rule, FirstObjective):
        return sorted(figures, key=lambda key: costs[key]), f"best {first}"
    if isinstance(rule, Within):
        limit = min(costs.values()) + abs(min(costs.values())) * rule.percent / 100 if costs else 0.0
        then = {key: cost(own[rule.then], objectives[rule.then]) for key, own in figures.items()}
        order = sorted(
            figures, key=lambda key: (False, then[key], costs[key]) if costs[key] <= limit else (True, costs[key], 0.0)
        )
        return order, f"best {rule.then} of those within {rule.percent:g} % of the best {first}"
    front = set(pareto_front(figures, objectives))
    reference = better_baseline({key: figures[key] for key in baselines}, objectives)
    usable = all(own[name] > 0 for own in figures.values() for name in objectives)
    if reference is not None and usable:
        words = "smallest mean ratio of the objectives to the better baseline's"
        costs = {key: mean_ratio(own, figures[reference], objectives) for key, own in figures.items()}
    else:
        words = f"best {first}"
    return sorted(figures, key=lambda key: (key not in front, costs[key])), f"{words}, no other dominating it"


def better_baseline(baselines: Mapping[T, Figures], objectives: Objectives) -> T | None:
    """The one of smallest mean ratio to the first, or best in the first objective where ratios say nothing."""
    if not baselines:
        return None
    if all(own[name] > 0 for own in baselines.values() for name in objectives):
        first = next(iter(baselines.values()))
        return min(baselines, key=lambda key: mean_ratio(baselines[key], first, objectives))
    name, mode = next(iter(objectives.items()))
    return min(baselines, key=lambda key: cost(baselines[key][name], mode))


def candidates(trials: Sequence[TrialState], objectives: Objectives, rule: WinnerRule = _DEFAULT) -> list[TrialState]:
    """Trials in the order of the rule, the winner first. Only those that ran to their end with finite figures count."""
    complete = {
        trial.number: trial
        for trial in trials
        if trial.status == "finished" and all(math.isfinite(trial.best.get(name, math.nan)) for name in objectives)
    }
    figures = {number: trial.best for number, trial in complete.items()}
    order, _ = rank(figures, [number for number, trial in complete.items() if trial.label], objectives, rule)
    return [complete[number] for number in order]
