"""The Jacobians that a strategy must cope with, and how results on them are compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

JACOBIANS = ("random", "conflicting", "near_opposed", "zero_row", "duplicate_rows", "small")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Of `relative_error`, for results that are equal but for rounding."""


def jacobian(kind: str, tasks: int, dtype: torch.dtype, seed: int = 0, width: int = 3000) -> Tensor:
    """A Jacobian (tasks, width) of one of the kinds in JACOBIANS."""
    generator = torch.Generator().manual_seed(1000 * tasks + seed)
    rows = torch.randn(tasks, width, dtype=torch.float64, generator=generator)
    if kind == "conflicting":
        # Each row has a part against the mean of the others.
        rows -= 0.8 * (rows.sum(0) - rows)
    elif kind == "near_opposed":
        signs = torch.tensor([(-1.0) ** i for i in range(tasks)], dtype=torch.float64)
        rows = signs[:, None] * (rows[0] + 1e-3 * rows)
    elif kind == "zero_row":
        rows[-1] = 0
    elif kind == "duplicate_rows":
        rows[0] = -rows[-1] + 0.1 * rows[0]
        rows[1] = rows[0] if tasks > 2 else rows[1]
    elif kind == "small":
        rows = 1e-5 * (rows - 0.8 * (rows.sum(0) - rows))
    return rows.to(dtype)


def describe(kind: str, rows: Tensor) -> str:
    """A Jacobian in the words of a failure."""
    return f"the {kind} Jacobian {tuple(rows.shape)} {rows.dtype}"


def relative_error(got: Tensor, expected: Tensor, rows: Tensor, weights: Tensor | None = None) -> float:
    """‖got − expected‖ / Σ |w_t|·‖g_t‖, with weights of 1 where they are not given."""
    lengths = rows.double().norm(dim=1)
    scale = (lengths if weights is None else weights.abs() * lengths).sum()
    return float((got.double() - expected.double()).norm() / scale)


def identical(left: Any, right: Any) -> bool:
    """Bit for bit, through mappings and sequences; NaN equals NaN, None equals None."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        same_kind = left.dtype == right.dtype and left.shape == right.shape
        return same_kind and torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(identical, left, right))
    return bool(left == right)
