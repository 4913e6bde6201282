"""The median stopping rule: Golovin et al., "Google Vizier", KDD 2017, section 3.2.2.

A trial stops after an epoch when its best figure so far is worse than the median of the running averages, up to the
same epoch, of the trials that have come as far.
"""

from __future__ import annotations

import math
from statistics import fmean, median

from mtlsearch.search.pareto import Figures, cost


class MedianRule:
    """On one objective. grace_epochs: no trial stops before; min_trials: others that must have come as far."""

    def __init__(self, name: str, mode: str, grace_epochs: int, min_trials: int) -> None:
        self._name, self._mode = name, mode
        self._grace, self._least = grace_epochs, min_trials
        self._costs: dict[int, list[float]] = {}

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        own = self._costs.setdefault(trial, [])
        own.append(cost(figures.get(self._name, math.nan), self._mode))
        if epoch < self._grace:
            return False
        others = [
            fmean(costs[:epoch]) for other, costs in self._costs.items() if other != trial and len(costs) >= epoch
        ]
        return len(others) >= self._least and min(own) > median(others)
