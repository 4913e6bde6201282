"""Learning curves that are known: what a simulated search is shown, an epoch at a time, in the place of trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mtlsearch.search.plan.space import Point
from mtlsearch.search.study.pareto import Figures, Objectives, cost


@dataclass(frozen=True)
class Curve:
    """A configuration and the figures after each epoch that is known of it."""

    number: int
    point: Point
    rows: Sequence[Figures]
    epochs: int
    """of the whole training"""
    label: str = ""
    """a baseline's name: such a trial is never stopped"""
    failed: bool = False
    """the epoch after the last row ended in a failure"""
    seconds: Sequence[float] = ()
    """of each row; nothing: an epoch takes one unit of time"""
    stage_ends: Sequence[int] = ()
    """the last epochs of cheap stages, of which figures are not compared with those of later ones"""

    @property
    def whole(self) -> bool:
        return len(self.rows) >= self.epochs

    @property
    def censored(self) -> bool:
        """Whether nobody knows how it goes on: it was stopped, or was still running."""
        return not self.whole and not self.failed

    def duration(self, epoch: int) -> float:
        """Of an epoch, from 1; of one that failed, the mean of those before."""
        if not self.seconds:
            return 1.0
        return self.seconds[epoch - 1] if epoch <= len(self.seconds) else fmean(self.seconds)

    def best(self, epochs: int, objectives: Objectives) -> Figures:
        """The figures of the best of the first `epochs` epochs by the first objective, of those in the stage that was
        reached, as the training itself counts them; empty where there is none."""
        name, mode = next(iter(objectives.items()))
        epochs = min(epochs, len(self.rows))
        begin = max((end for end in self.stage_ends if end < epochs), default=0)
        return min(self.rows[begin:epochs], key=lambda row: cost(row.get(name, math.nan), mode), default={})
