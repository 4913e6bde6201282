"""Checks on `combine`: what a strategy makes of a Jacobian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mtlsearch.gradients import GramianStrategy
from mtlsearch.gradients.gramian import gramian

from .jacobians import JACOBIANS, TOLERANCE, describe, jacobian, relative_error
from .subject import Check, Subject, step_of


def checks_of(subject: Subject) -> Sequence[Check]:
    if not subject.combines:
        return []
    found: list[Check] = [
        one_task_is_the_plain_gradient,
        result_is_a_finite_gradient,
        input_is_not_modified,
        float32_agrees_with_float64,
        dependent_rows_give_a_finite_gradient,
        refuses_what_is_no_jacobian,
    ]
    if subject.kind == "gramian":
        found.append(result_is_the_weighted_sum_of_the_rows)
    if subject.scale_equivariant:
        found.append(scale_equivariance)
    return found


def one_task_is_the_plain_gradient(subject: Subject) -> None:
    for dtype in TOLERANCE:
        for kind in ("random", "small"):
            rows = jacobian(kind, 1, dtype)
            got = subject.combine(subject.new(1), rows)
            # The mean of several equal samples is rounded; one sample is the gradient itself.
            allowed = 0 if subject.samples == 1 else 4 * torch.finfo(dtype).eps
            if not (error := relative_error(got, rows[0], rows)) <= allowed:
                raise AssertionError(
                    f"with one task the result must be its gradient, of norm {float(rows.norm()):.6g}, but on "
                    f"{describe(kind, rows)} came a vector of norm {float(got.norm()):.6g}, {error:.3g} of it away"
                )


def result_is_a_finite_gradient(subject: Subject) -> None:
    for kind, rows in _all_jacobians():
        got = subject.combine(subject.new(len(rows)), rows)
        if got.shape != rows.shape[1:] or got.dtype != rows.dtype:
            raise AssertionError(
                f"the result must be (P,) = {tuple(rows.shape[1:])} {rows.dtype}, but on {describe(kind, rows)} came "
                f"{tuple(got.shape)} {got.dtype}"
            )
        _expect_finite(got, describe(kind, rows))


def input_is_not_modified(subject: Subject) -> None:
    for kind, rows in _all_jacobians():
        before = rows.clone()
        got = subject.combine(subject.new(len(rows)), rows)
        if not torch.equal(rows, before):
            changed = [task for task in range(len(rows)) if not torch.equal(rows[task], before[task])]
            raise AssertionError(
                f"the Jacobian must not be modified, but rows {changed} of {describe(kind, rows)} were"
            )
        if got.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr():
            raise AssertionError(f"the result must be a new tensor, but is a view of {describe(kind, rows)}")


def float32_agrees_with_float64(subject: Subject) -> None:
    tolerance = subject.float32_tolerance
    for kind, rows in _all_jacobians((torch.float32,)):
        if kind == "near_opposed":
            continue  # eigenvalues of 1e-7 of the largest are rounding in float32
        tasks, exact = len(rows), rows.double()
        got = subject.combine(subject.new(tasks), rows)
        scale = _length(subject, exact)
        expected = subject.combine(subject.new(tasks), exact)
        scale = max(scale, float(expected.norm()))
        error = float((got.double() - expected).norm())
        if not error <= tolerance * scale:
            raise AssertionError(
                f"float32 must agree with float64 to {tolerance:g} of Σ|w_t|‖g_t‖ = {scale:.3g}, but on "
                f"{describe(kind, rows)} they differ by {error / scale if scale else error:.3g} of it"
            )


def dependent_rows_give_a_finite_gradient(subject: Subject) -> None:
    for dtype in TOLERANCE:
        row = jacobian("random", 1, dtype)[0]
        for factors in ([0, 0, 0], [1, 1, 1], [1, -1], [1, -1, 0], [1, -2, 1, 3], [1e-5, 1, -1e3]):
            rows = torch.tensor(factors, dtype=dtype)[:, None] * row
            got = subject.combine(subject.new(len(rows)), rows)
            what = f"rows that are {factors} times one gradient, {dtype},"
            _expect_finite(got, what)
            if not any(factors) and got.any():
                raise AssertionError(f"gradients of zero must give zero, but came a norm of {float(got.norm()):.3g}")


def refuses_what_is_no_jacobian(subject: Subject) -> None:
    good = jacobian("random", 2, torch.float32)
    bad = {
        "a single row (P,)": good[0],
        "no rows, (0, P)": good[:0],
        "bfloat16 rows": good.bfloat16(),
        "integer rows": good.long(),
    }
    for what, rows in bad.items():
        stacked = rows if subject.samples == 1 or rows.ndim == 1 else torch.stack([rows] * subject.samples)
        try:
            subject.new(2).combine(stacked, step_of(good, None, 0))
        except (ValueError, TypeError):
            continue
        raise AssertionError(f"{what} must be refused with ValueError or TypeError, but combine accepted them")


def result_is_the_weighted_sum_of_the_rows(subject: Subject) -> None:
    tolerance = TOLERANCE[torch.float64]
    for kind, rows in _all_jacobians((torch.float64,)):
        got, weights = subject.combine(subject.new(len(rows)), rows), _weights(subject, rows)
        expected = weights @ rows
        scale = float((weights.abs() * rows.norm(dim=1)).sum())
        if not float((got - expected).norm()) <= tolerance * scale:
            raise AssertionError(
                f"the result of a Gramian strategy must be wᵀJ, in the span of the rows, with the weights w = "
                f"{[round(w, 6) for w in weights.tolist()]} of weigh(JJᵀ), but on {describe(kind, rows)} came a vector "
                f"{float((got - expected).norm()):.3g} away from it (Σ|w_t|‖g_t‖ = {scale:.3g})"
            )


def scale_equivariance(subject: Subject) -> None:
    for dtype, tolerance in TOLERANCE.items():
        for factor in (1e-5, 3.0, 65536.0):
            rows = jacobian("conflicting", 3, dtype)
            got = subject.combine(subject.new(3), factor * rows)
            expected = factor * subject.combine(subject.new(3), rows)
            if not (error := relative_error(got, expected, factor * rows)) <= tolerance:
                raise AssertionError(
                    f"combine({factor:g}·J) must be {factor:g}·combine(J), of norm {float(expected.norm()):.6g}, but "
                    f"for {describe('conflicting', rows)} came a vector of norm {float(got.norm()):.6g}, {error:.3g} "
                    f"of Σ‖g_t‖ away (allowed: {tolerance:g}); is an epsilon added somewhere?"
                )


def _all_jacobians(dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCE)) -> Iterator[tuple[str, Tensor]]:
    for dtype in dtypes:
        for kind in JACOBIANS:
            for tasks in (2, 3, 5):
                yield kind, jacobian(kind, tasks, dtype)


def _expect_finite(got: Tensor, what: str) -> None:
    if not bool(got.isfinite().all()):
        count = int((~got.isfinite()).sum())
        raise AssertionError(f"the result must be finite, but on {what} came {count} entries that are NaN or infinite")


def _weights(subject: Subject, rows: Tensor) -> Tensor:
    """The weights (T,) of a Gramian strategy."""
    strategy = subject.new(len(rows))
    assert isinstance(strategy, GramianStrategy)
    return strategy.weigh(gramian(rows), step_of(rows, None, 0)).detach()


def _length(subject: Subject, rows: Tensor) -> float:
    """Σ |w_t|·‖g_t‖, with weights of 1 for strategies that give none."""
    weights = _weights(subject, rows) if subject.kind == "gramian" else torch.ones(len(rows), dtype=rows.dtype)
    return float((weights.abs() * rows.norm(dim=1)).sum())
