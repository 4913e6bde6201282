"""Which of many vectors of objectives are better: dominance, fronts, and an order that spreads over a front."""

from __future__ import annotations

import math
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
    """Costs (N, M) -> the rows of each non-dominated front, the best front first, rows in order (Deb et al. 2002)."""
    left = np.arange(len(costs))
    found: list[npt.NDArray[np.int64]] = []
    while len(left):
        own, other = costs[left][:, None], costs[left][None]
        no_worse, better = np.all(other <= own, axis=-1), np.any(other < own, axis=-1)
        dominated = np.any(no_worse & better, axis=1)
        found.append(left[~dominated])
        left = left[dominated]
    return found


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
