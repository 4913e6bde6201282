"""Asynchronous successive halving on one objective or several, and Hyperband as brackets of it.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934,
algorithm 2, in its stopping form: nothing is paused, and a trial that reaches a rung goes on when it is among the best
1/η of those that have reached the rung so far, itself included.

With several objectives "best" is an order of the vectors: Schmucker et al., "Multi-objective Asynchronous Successive
Halving", 2021, https://arxiv.org/abs/2106.12639: first by non-dominated front (Deb et al. 2002), within a front by an
ε-net, each next vector the farthest from those already taken, so that what goes on is spread over the front.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from mtlsearch.search.early_stopping.rule import Figures
from mtlsearch.search.study.pareto import best_first, cost
from mtlsearch.training.seeding import derive_seed


class SuccessiveHalving:
    """ASHA on the costs of `objectives` (name -> "min" or "max"), the rungs at grace·η^k epochs, k from `bracket`.

    grace_epochs: of the first rung; reduction_factor: η; epochs: of a whole trial, where nothing is left to stop.
    """

    def __init__(
        self, objectives: Mapping[str, str], grace_epochs: int, reduction_factor: float, epochs: int, bracket: int = 0
    ) -> None:
        self._objectives = dict(objectives)
        self._share = 1 / reduction_factor
        self._rungs: dict[int, list[tuple[float, ...]]] = {}
        power = bracket
        while (milestone := math.ceil(grace_epochs * reduction_factor**power - 1e-9)) < epochs:
            self._rungs[milestone] = []
            power += 1

    @property
    def milestones(self) -> tuple[int, ...]:
        return tuple(self._rungs)

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        if epoch not in self._rungs:
            return False
        reached = self._rungs[epoch]
        own = tuple(cost(figures.get(name, math.nan), mode) for name, mode in self._objectives.items())
        if len(own) == 1:  # kept sorted, so that a study of many trials does not sort them all at every report
            place = bisect_right(reached, own)
            reached.insert(place, own)
        else:
            reached.append(own)
            place = int(np.flatnonzero(best_first(np.array(reached)) == len(reached) - 1)[0])
        return place >= math.ceil(len(reached) * self._share - 1e-9)


class Hyperband:
    """Brackets of successive halving that begin at later and later rungs, for fear of stopping late bloomers.

    Li et al., "Hyperband", JMLR 2018, in the asynchronous form of ASHA. A trial's bracket is drawn by its number and
    `seed`, bracket s with a weight that gives all of them the same budget: η^−s of the trials' first rungs.
    """

    def __init__(
        self,
        objectives: Mapping[str, str],
        grace_epochs: int,
        reduction_factor: float,
        epochs: int,
        brackets: int,
        seed: int,
    ) -> None:
        made = [SuccessiveHalving(objectives, grace_epochs, reduction_factor, epochs, s) for s in range(brackets)]
        self._brackets = [bracket for bracket in made if bracket.milestones] or made[:1]
        weights = np.array([reduction_factor**-s for s in range(len(self._brackets))])
        self._until = np.cumsum(weights / weights.sum())
        self._seed = seed

    @property
    def milestones(self) -> tuple[int, ...]:
        """Of all brackets."""
        return tuple(sorted({epoch for bracket in self._brackets for epoch in bracket.milestones}))

    def bracket_of(self, trial: int) -> int:
        draw = np.random.default_rng(derive_seed(self._seed, "bracket", trial)).random()
        return min(int(np.searchsorted(self._until, draw)), len(self._brackets) - 1)

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        return self._brackets[self.bracket_of(trial)].stops(trial, epoch, figures)
