"""Which configuration a simulated search tries next: in the order in which they are, at random, or by a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import optuna

from mtlsearch.search.plan.distributions import Range
from mtlsearch.search.plan.settings import RandomSampler, SearchSettings
from mtlsearch.search.plan.space import Point, Space
from mtlsearch.search.sampling.asking import Asker
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.study.pareto import Figures
from mtlsearch.training.seeding import derive_seed


class Order(Protocol):
    """Hands out curves, none twice, and hears what came of them."""

    def next(self) -> Curve | None:
        """None when all are taken."""
        ...

    def ended(self, curve: Curve, figures: Figures | None) -> None:
        """figures: the best epoch's of those that were trained; None: it failed."""
        ...


class Listed:
    """The curves as they stand."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._left = iter(curves)

    def next(self) -> Curve | None:
        return next(self._left, None)

    def ended(self, curve: Curve, figures: Figures | None) -> None:
        """The list is decided."""


class Sampled:
    """Baselines first, then what a sampler draws: of a point that it suggests, the nearest curve not yet taken.

    It is told what came of that curve at the curve's own point. What it would draw at random at its start is what
    random search draws with the same seed: the nearest to a random point is no even draw where curves lie unevenly.
    """

    def __init__(self, curves: Sequence[Curve], space: Space, settings: SearchSettings) -> None:
        self._curves = curves
        self._asker = Asker(space, settings)
        self._points = PointDistances(space, [curve.point for curve in curves])
        self._free = np.ones(len(curves), bool)
        self._places = {curve.number: place for place, curve in enumerate(curves)}
        labelled = sum(bool(curve.label) for curve in curves)
        given = max(labelled, getattr(settings.sampler, "startup_trials", 0))
        self._given = iter(shuffled(curves, settings.seed)[:given])
        self._open: dict[int, optuna.Trial] = {}

    def next(self) -> Curve | None:
        given = next(self._given, None)
        if given is None and not self._free.any():
            return None
        asked, _ = self._asker.ask(None if given is None else given.point)
        if given is None:
            place = int(np.where(self._free, self._points.to(asked.params), np.inf).argmin())
        else:
            place = self._places[given.number]
        self._free[place] = False
        self._open[self._curves[place].number] = asked
        return self._curves[place]

    def ended(self, curve: Curve, figures: Figures | None) -> None:
        self._asker.tell_elsewhere(self._open.pop(curve.number), curve.point, figures)


class PointDistances:
    """Gower's distance from a point of a space to others: over the parameters, the difference of two numbers as a share
    of their range, on the scale that they are drawn on, and 1 for options that differ and for what only one point has.
    """

    def __init__(self, space: Space, points: Sequence[Point]) -> None:
        self._parameters = dict(space.parameters())
        self._rows = np.stack([self._row(point) for point in points]) if points else np.empty((0, 0))
        self._numeric = np.array([isinstance(parameter, Range) for parameter in self._parameters.values()], bool)

    def to(self, point: Point) -> npt.NDArray[np.float64]:
        """(N,)"""
        own = self._row(point)
        gap = np.where(self._numeric, np.abs(self._rows - own), self._rows != own)
        one_has, both_lack = np.isnan(self._rows) ^ np.isnan(own), np.isnan(self._rows) & np.isnan(own)
        distances: npt.NDArray[np.float64] = np.where(one_has, 1.0, np.where(both_lack, 0.0, gap)).sum(axis=1)
        return distances

    def _row(self, point: Point) -> npt.NDArray[np.float64]:
        """Numbers by their place between the ends, options by their index, NaN for what the point has not."""
        row = np.full(len(self._parameters), np.nan)
        for column, (name, parameter) in enumerate(self._parameters.items()):
            if name in point:
                value = point[name]
                if isinstance(parameter, Range):
                    row[column] = parameter.position(value)
                else:
                    row[column] = parameter.labels.index(value)
        return row


def make_order(curves: Sequence[Curve], space: Space, settings: SearchSettings) -> Order:
    """By the sampler of the settings."""
    if isinstance(settings.sampler, RandomSampler):
        return Listed(shuffled(curves, settings.seed))
    return Sampled(curves, space, settings)


def shuffled(curves: Sequence[Curve], seed: int) -> list[Curve]:
    """Random search: baselines, then all others evenly, whatever lies near what."""
    drawn = [curve for curve in curves if not curve.label]
    places = np.random.default_rng(derive_seed(seed, "order")).permutation(len(drawn))
    return [*(curve for curve in curves if curve.label), *(drawn[place] for place in places)]
