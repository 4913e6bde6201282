"""Small problems on the T×T Gramian, solved in float64 on the host with numpy: no scipy, no cvxpy.

Each solver states its tolerance and its bound on iterations. `precision` is the relative accuracy of the Gramian's
entries (see `Step.precision`): what is smaller than that is rounding, not geometry.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"

_EPS = float(np.finfo(np.float64).eps)


def project_on_simplex(point: Array) -> Array:
    """The nearest point (T,) with entries ≥ 0 that sum to 1. Exact, by sorting."""
    descending = np.sort(point)[::-1]
    thresholds = (np.cumsum(descending) - 1) / np.arange(1, len(point) + 1)
    return np.maximum(point - thresholds[descending > thresholds][-1], 0)


def nonnegative_quadratic(matrix: Array, linear: Array, precision: float = _EPS, bounded: bool = True) -> Array | None:
    """argmin ½·xᵀHx + fᵀx over x ≥ 0: matrix H (T, T) positive semidefinite, linear f (T,) -> x (T,).

    Goldfarb and Idnani's dual active-set method: coordinates enter one at a time, each until the gradient along it
    vanishes, and leave when they reach 0. The active block of H stays invertible, so duplicate and opposed rows do no
    harm. Exact up to rounding: at the end the gradient Hx + f is at least −T·precision·(|H|x + |f|) in every
    coordinate, and zero to that tolerance where x > 0. Typically T changes of the active set, at most 20·T.

    Without a minimum (H has a null direction d ≥ 0 with fᵀd < 0) the answer is None. A caller that knows that there is
    one says `bounded`: such a direction is then the rounding of a flat one, and is left out.
    """
    size = len(linear)
    x = np.zeros(size)
    active: list[int] = []
    flat = np.zeros(size, dtype=bool)
    diagonal, absolute = matrix.diagonal(), np.abs(matrix)
    for _ in range(20 * size):
        slope = matrix @ x + linear
        slope[active] = 0
        # Each slope is measured against the rounding of its own terms.
        allowed = size * precision * (absolute @ x + np.abs(linear))
        violation = np.where(flat, 0, slope + allowed)
        entering = int(np.argmin(violation / np.sqrt(np.where(diagonal > 0, diagonal, 1))))
        if violation[entering] >= 0:
            break
        while True:
            response: Array = np.zeros(0)
            curvature = float(diagonal[entering])
            if active:
                response = solve_linear(matrix[np.ix_(active, active)], matrix[active, entering])
                curvature -= float(matrix[entering, active] @ response)
            dependent = curvature <= size * precision * diagonal[entering]
            slope_now = matrix[entering] @ x + linear[entering]
            full = np.inf if dependent else -slope_now / curvature
            ratios = np.full(len(active), np.inf)
            np.divide(x[active], response, out=ratios, where=response > 0)
            leaving = int(np.argmin(ratios)) if active else -1
            partial = ratios[leaving] if active else np.inf
            step = min(full, partial)
            if not np.isfinite(step):
                if not bounded:
                    return None
                flat[entering] = True
                break
            x[active] -= step * response
            x[entering] += step
            if full <= partial:
                active.append(entering)
                break
            x[active[leaving]] = 0
            del active[leaving]
    if active:
        # The steps' roundings add up; the active block gives x in one go.
        polished = solve_linear(matrix[np.ix_(active, active)], -linear[active])
        if (polished >= 0).all():
            x[active] = polished
    return np.maximum(x, 0)


def shortest_in_hull(gramian: Array, precision: float = _EPS) -> Array:
    """Weights (T,) on the simplex of the shortest vector wᵀJ in the convex hull of the rows of J.

    With 11ᵀ added to G and the constraint Σw = 1 left out, the minimiser of ½·xᵀ(G + 11ᵀ)x − 1ᵀx over x ≥ 0 is w times
    a positive number: the conditions of optimality are the same. Tolerance and bound are those of
    `nonnegative_quadratic`; two rows have a closed form.
    """
    if len(gramian) == 2:
        (a, b), (_, c) = gramian
        curvature = a + c - 2 * b  # ‖g₁ − g₂‖²
        if curvature <= 0:
            return np.array([0.5, 0.5])
        first = min(max((c - b) / curvature, 0.0), 1.0)
        return np.array([first, 1 - first])
    scale = gramian.diagonal().max()
    if scale <= 0:
        return np.full(len(gramian), 1 / len(gramian))
    x = nonnegative_quadratic(gramian / scale + 1, -np.ones(len(gramian)), precision)
    assert x is not None  # a sum of squares: bounded below
    return x / x.sum()


def eigen(gramian: Array, precision: float = _EPS) -> tuple[Array, Array]:
    """Eigenvalues (R,), ascending, above the rounding T·precision·λ_max, and their eigenvectors (T, R)."""
    values, vectors = np.linalg.eigh(gramian)
    kept = values > len(gramian) * precision * max(values[-1], 0)
    return values[kept], vectors[:, kept]


def pseudo_inverse(gramian: Array, precision: float = _EPS) -> Array:
    """G⁺ (T, T), with the rank of `eigen`."""
    values, vectors = eigen(gramian, precision)
    return (vectors / values) @ vectors.T


def power_equation(gramian: Array, power: float, precision: float = _EPS) -> Array:
    """The w > 0 (T,) with (Gw)_i = w_i^−power; weight 0 for a zero row. power > 0.

    w minimises the convex ½·wᵀGw − Σ_i ∫ w_i^−power, which damped Newton solves after every row is scaled to length 1
    in its own units (w = e·v with G_ii·e_i = e_i^−power). Stops when every equation holds to a relative 1e-13, or when
    no step brings it closer (the limit that rounding sets where gradients oppose each other: 1e-8 at angles of a
    thousandth); at most 200 Newton steps, 5 to 20 as a rule. power from 0.1 to 2: beyond, weights of rows of different
    lengths span more than float64 holds. Where 0 lies in the convex hull of the gradients there is no solution:
    eigenvalues are lifted to the rounding T·precision, which bounds w.
    """
    weights = np.zeros(len(gramian))
    nonzero = np.flatnonzero(gramian.diagonal() > 0)
    if len(nonzero) == 0:
        return weights
    inner = gramian[np.ix_(nonzero, nonzero)]
    lengths = np.sqrt(inner.diagonal())
    values, vectors = np.linalg.eigh(inner / np.outer(lengths, lengths))
    floor = len(inner) * precision
    if values[0] < floor:
        cosines = (vectors * np.maximum(values, floor)) @ vectors.T
    else:
        cosines = inner / np.outer(lengths, lengths)
    # In v: Σ_j C_ij·(l_j·e_j)·v_j·l_i = e_i^−p·v_i^−p. Each equation multiplied by e_i makes the system
    # symmetric, with the diagonal s_i = (l_i·e_i)² on both sides.
    unit = lengths ** (-2 / (1 + power))
    sides = lengths * unit
    matrix, share = cosines * np.outer(sides, sides), sides**2
    scale = share.max()
    matrix, share = matrix / scale, share / scale

    def objective(v: Array) -> float:
        integral = np.log(v) if power == 1 else (v ** (1 - power) - 1) / (1 - power)
        return float(0.5 * v @ matrix @ v - share @ integral)

    def error(v: Array) -> float:
        return float(np.abs(matrix @ v / (share * v**-power) - 1).max())

    v = np.ones(len(inner))
    value, wrong = objective(v), error(v)
    for _ in range(200):
        if wrong <= 1e-13:
            break
        wanted = share * v**-power
        residual = matrix @ v - wanted
        step = -solve_linear(matrix + np.diag(power * wanted / v), residual)
        slope = float(residual @ step)
        # Never past half the way to the boundary. Close to the solution the objective is flat to rounding,
        # and the error of the equations tells better whether a step is one.
        length = min(1.0, 0.5 / max(float((-step / v).max()), 0.5))
        while length > 1e-10:
            tried = v + length * step
            if objective(tried) <= value + 1e-4 * length * slope or error(tried) < 0.9 * wrong:
                break
            length /= 2
        else:
            break
        v, value, wrong = tried, objective(tried), error(tried)
    weights[nonzero] = unit * v
    return weights


def solve_linear(matrix: Array, right: Array) -> Array:
    """matrix⁻¹·right; least squares where rounding has made the matrix singular."""
    try:
        return np.linalg.solve(matrix, right).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, right, rcond=None)[0].astype(np.float64, copy=False)
