"""Which trial won, by a rule that is stated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from mtlsearch.search.study import TrialState

Figures = Mapping[str, float]
Objectives = Mapping[str, str]

#: printed wherever a winner is named
RULE = "smallest mean ratio of the objectives to the better baseline's, among the trials that no other dominates"

T = TypeVar("T")


def dominates(one: Figures, other: Figures, objectives: Objectives) -> bool:
    """At least as good in every objective, better in one."""
    gains = [_cost(other[name], mode) - _cost(one[name], mode) for name, mode in objectives.items()]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def pareto_front(figures: Mapping[T, Figures], objectives: Objectives) -> list[T]:
    """The keys whose figures no other's dominate."""
    return [
        key
        for key, own in figures.items()
        if not any(dominates(other, own, objectives) for other in figures.values())
    ]


def mean_ratio(figures: Figures, reference: Figures, objectives: Objectives) -> float:
    """Geometric mean over objectives of own to reference: below 1 is better, whatever the units.

    An objective to be maximised counts by its inverse ratio.
    """
    logs = []
    for name, mode in objectives.items():
        own, other = figures[name], reference[name]
        if own <= 0 or other <= 0:
            return math.nan  # ratios say nothing about such figures
        logs.append(math.log(own / other) * (1 if mode == "min" else -1))
    return math.exp(sum(logs) / len(logs))


def better_baseline(baselines: Mapping[T, Figures], objectives: Objectives) -> T | None:
    """The one of smallest mean ratio to the first; None if there is none."""
    if not baselines:
        return None
    reference = next(iter(baselines.values()))
    return min(baselines, key=lambda key: mean_ratio(baselines[key], reference, objectives))


def candidates(trials: Sequence[TrialState], objectives: Objectives) -> list[TrialState]:
    """Trials in the order of the rule, the winner first. Only trials that ran to their end take part.

    Trials of the front come first, each group by its mean ratio to the better baseline.
    """
    complete = {trial.number: trial for trial in trials if trial.status == "finished"}
    figures = {number: trial.best for number, trial in complete.items()}
    baselines = {number: figures[number] for number, trial in complete.items() if trial.label}
    reference_key = better_baseline(baselines, objectives)
    reference = figures[reference_key] if reference_key is not None else next(iter(figures.values()), {})
    front = set(pareto_front(figures, objectives))

    def order(number: int) -> tuple[bool, float]:
        ratio = mean_ratio(figures[number], reference, objectives)
        if math.isnan(ratio):
            name, mode = next(iter(objectives.items()))
            ratio = _cost(figures[number][name], mode)
        return number not in front, ratio

    return [complete[number] for number in sorted(complete, key=order)]


def _cost(value: float, mode: str) -> float:
    return value if mode == "min" else -value
