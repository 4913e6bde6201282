"""The median stopping rule: Golovin et al., "Google Vizier", KDD 2017, section 3.2.2.

A trial stops after an epoch when its best figure so far is worse than the median of the running averages, up to the
same epoch, of the trials that have come as far.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict

from mtlsearch.search.study.pareto import Figures, cost


class MedianRule:
    """On one objective. grace_epochs: no trial stops before; min_trials: others that must have come as far."""

    def __init__(self, name: str, mode: str, grace_epochs: int, min_trials: int) -> None:
        self._name, self._mode = name, mode
        self._grace, self._least = grace_epochs, min_trials
        self._best: dict[int, float] = {}
        self._sums: dict[int, float] = {}
        self._averages: dict[int, list[float]] = defaultdict(list)
        """epoch -> running averages of the trials that have come as far, sorted"""

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        own = cost(figures.get(self._name, math.nan), self._mode)
        self._best[trial] = min(own, self._best.get(trial, math.inf))
        self._sums[trial] = own + self._sums.get(trial, 0.0)
        others = self._averages[epoch]
        beaten = len(others) >= self._least and self._best[trial] > _median(others)
        insort(others, self._sums[trial] / epoch)
        return beaten and epoch >= self._grace


def _median(ordered: list[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
