"""Which of many vectors of objectives are better: dominance, fronts, and an order that spreads over a front."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Figures = Mapping[str, float]
Objectives = Mapping[str, str]
"""metric -> "min" or "max" """
Costs = npt.NDArray[np.float64]


def cost(value: float, mode: str) -> float:
    """What is to be small; a figure that is no finite number is worse than any."""
    sign = value if mode == "min" else -value
    return sign if math.isfinite(sign) else math.inf


def costs_of(figures: Sequence[Figures], objectives: Objectives) -> Costs:
    """(N, M): figures that are missing cost infinitely much."""
    rows = [[cost(own.get(name, math.nan), mode) for name, mode in objectives.items()] for own in figures]
    return np.array(rows, np.float64).reshape(len(figures), len(objectives))


def fronts(costs: Costs) -> list[npt.NDArray[np.int64]]:
    """Costs (N, M) -> the rows of each non-dominated front, the best front first, rows in order.

    Zhang et al., "An Efficient Approach to Nondominated Sorting", 2015, ENS-BS: in lexicographic order a row can only
    be dominated by earlier ones, and who is not dominated in one front is not dominated in any later.
    """
    found: list[list[int]] = []
    for row in np.lexsort(costs.T[::-1]):

        def free(members: list[int], own: Costs = costs[row]) -> bool:
            others = costs[members]
            return not (np.all(others <= own, axis=1) & np.any(others < own, axis=1)).any()

        place = bisect_left(found, True, key=free)
        if place == len(found):
            found.append([])
        found[place].append(int(row))
    return [np.sort(members) for members in found]


def spread_order(costs: Costs) -> npt.NDArray[np.int64]:
    """Costs (N, M) of one front -> its rows from first to last taken: an ε-net in costs scaled to [0, 1].

    It starts with the best of the first objective, and each next row is the farthest from those already taken; ties go
    to the earlier row.
    """
    finite = np.where(np.isfinite(costs), costs, np.nan)
    with np.errstate(all="ignore"):
        low = np.nan_to_num(np.fmin.reduce(finite, axis=0))
        high = np.nan_to_num(np.fmax.reduce(finite, axis=0))
    scaled = np.nan_to_num((finite - low) / np.where(high > low, high - low, 1), nan=2.0)
    order = [int(np.argmin(costs[:, 0]))]
    distance = np.full(len(costs), np.inf)
    while len(order) < len(costs):
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        distance[order] = -1
        order.append(int(np.argmax(distance)))
    return np.array(order)


def best_first(costs: Costs) -> npt.NDArray[np.int64]:
    """Costs (N, M) -> rows from best to worst: by value with one objective, by front and spread with several."""
    if costs.shape[1] == 1:
        return np.argsort(costs[:, 0], kind="stable")
    return np.concatenate([front[spread_order(costs[front])] for front in fronts(costs)])
