"""Aligned-MTL: make the principal components of the gradients equally long (Senushkin et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..solvers import Array, eigen
from ..strategy import SolvedStrategy, Step

# Of the eigenvalues in ascending order.
_SCALES: dict[str, Callable[[Array], float]] = {
    "min": lambda values: values[0],
    "median": lambda values: values[(len(values) - 1) // 2],
    "rmse": lambda values: float(values.mean()),
}


@dataclass(eq=False)
class AlignedMTL(SolvedStrategy):
    """w = √s·V·Λ^(−1/2)·Vᵀ·(1/T, …, 1/T) with G = V·Λ·Vᵀ: J gets condition number 1, and then the mean.

    Senushkin et al. 2023, Algorithm 1. s is the smallest eigenvalue above rounding in the paper (`scale` = "min");
    "median" (the lower one of an even number) and "rmse" (the mean of the eigenvalues) are in the authors' code.
    """

    name: ClassVar[str] = "aligned_mtl"
    scale: str = hyperparameter(
        "min",
        search={"choice": tuple(_SCALES)},
        description='eigenvalue all components get: "min", "median" or "rmse"',
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in _SCALES:
            raise ValueError(
                f"scale of strategy 'aligned_mtl' must be one of {', '.join(_SCALES)}, but got scale={self.scale!r}"
            )

    def solve(self, gramian: Array, step: Step) -> Array:
        mean = np.full(len(gramian), 1 / len(gramian))
        values, vectors = eigen(gramian, step.precision)
        if len(values) == 0:
            return mean  # all gradients are zero
        return (vectors * np.sqrt(_SCALES[self.scale](values) / values)) @ (vectors.T @ mean)


INFO = StrategyInfo(
    strategy=AlignedMTL,
    paper=Paper(
        authors="Senushkin, Patakin, Kuznetsov, Konushin",
        year=2023,
        title="Independent Component Alignment for Multi-Task Learning",
        venue="CVPR 2023",
        arxiv="2305.19000",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
