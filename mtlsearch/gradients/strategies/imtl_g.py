"""IMTL-G: a combination with equal projections on all gradients (Liu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..registry import Paper, StrategyInfo
from ..solvers import Array, pseudo_inverse
from ..strategy import SolvedStrategy, Step


def equal_projections(gramian: Array, precision: float) -> Array:
    """w (T,) with Σ w = 1 and ⟨Σ w_t·g_t, g_i/‖g_i‖⟩ the same for all i.

    v = G⁺·(‖g_1‖, …, ‖g_T‖), w = v / Σ v: the paper's solution where G is invertible, and for linearly dependent rows
    the extension of Quinton and Rey (2024, "Jacobian Descent for Multi-Objective Optimization"). Zeros where Σ v is
    zero to rounding.
    """
    scale = gramian.diagonal().max()
    if scale <= 0:
        return np.zeros(len(gramian))
    inner = gramian / scale
    v = pseudo_inverse(inner, precision) @ np.sqrt(np.maximum(inner.diagonal(), 0))
    total = v.sum()
    return v / total if abs(total) > len(v) * precision * np.abs(v).sum() else np.zeros(len(v))


@dataclass(eq=False)
class IMTLG(SolvedStrategy):
    """w with Σ w = 1 so that the combined gradient has equal projections on all task gradients.

    Liu et al. 2021, the gradient balance of "Towards Impartial Multi-task Learning". Weights can be negative. A zero
    gradient takes no part.
    """

    name: ClassVar[str] = "imtl_g"

    def solve(self, gramian: Array, step: Step) -> Array:
        return equal_projections(gramian, step.precision)


PAPER = Paper(
    authors="Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang",
    year=2021,
    title="Towards Impartial Multi-task Learning",
    venue="ICLR 2021",
)

INFO = StrategyInfo(strategy=IMTLG, paper=PAPER, scale_equivariant=True, permutation_equivariant=True)
