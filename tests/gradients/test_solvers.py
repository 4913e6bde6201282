"""The solvers on the T×T Gramian: conditions of optimality on random and degenerate problems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mtlsearch.gradients.solvers import (
    eigen,
    nonnegative_quadratic,
    power_equation,
    project_on_simplex,
    pseudo_inverse,
    shortest_in_hull,
)


def rows_of(seed: int, tasks: int, rank: int) -> np.ndarray:
    """(tasks, rank): with a rank below `tasks` the Gramian is singular."""
    return np.random.default_rng(seed).standard_normal((tasks, rank))


@pytest.mark.parametrize(("tasks", "rank"), [(2, 1), (2, 2), (3, 2), (5, 2), (5, 5), (8, 4), (20, 20)])
def test_nonnegative_quadratic_satisfies_kkt(tasks: int, rank: int) -> None:
    for seed in range(40):
        rows = rows_of(seed, tasks, rank)
        matrix = rows @ rows.T
        linear = matrix @ np.random.default_rng(1000 + seed).standard_normal(tasks)  # so that there is a minimum
        x = nonnegative_quadratic(matrix, linear)
        assert x is not None and (x >= 0).all()
        slope = matrix @ x + linear
        size = np.abs(matrix) @ x + np.abs(linear)
        assert (slope >= -1e-9 * size).all()
        assert (np.abs(slope[x > 1e-12]) <= 1e-9 * size[x > 1e-12]).all()


def test_nonnegative_quadratic_equals_the_best_active_set() -> None:
    for seed in range(50):
        rows = rows_of(seed, 4, 4)
        matrix, linear = rows @ rows.T, np.random.default_rng(seed + 99).standard_normal(4)

        def value(x: np.ndarray, matrix: np.ndarray = matrix, linear: np.ndarray = linear) -> float:
            return float(0.5 * x @ matrix @ x + linear @ x)

        best = 0.0
        for size in range(1, 5):
            for active in map(list, itertools.combinations(range(4), size)):
                x = np.zeros(4)
                x[active] = np.linalg.solve(matrix[np.ix_(active, active)], -linear[active])
                if (x >= 0).all():
                    best = min(best, value(x))
        x = nonnegative_quadratic(matrix, linear)
        assert x is not None and value(x) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_nonnegative_quadratic_without_a_minimum() -> None:
    # x₁ = x₂ is a flat direction, along which the linear part falls for ever.
    matrix = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert nonnegative_quadratic(matrix, np.array([-1.0, -1.0]), bounded=False) is None
    assert nonnegative_quadratic(np.zeros((2, 2)), np.array([-1.0, 1.0]), bounded=False) is None
    bounded = nonnegative_quadratic(matrix, np.array([-1.0, 1.0]), bounded=False)
    assert bounded is not None and np.allclose(matrix @ bounded, [1, -1])


@pytest.mark.parametrize("tasks", [2, 3, 7])
def test_projection_on_the_simplex(tasks: int) -> None:
    generator = np.random.default_rng(tasks)
    for scale in (0.1, 1, 100):
        point = scale * generator.standard_normal(tasks)
        nearest = project_on_simplex(point)
        assert (nearest >= 0).all() and nearest.sum() == pytest.approx(1)
        # ⟨point − nearest, other − nearest⟩ ≤ 0 for every other point of a convex set.
        others = generator.dirichlet(np.full(tasks, 0.3), 500)
        assert ((others - nearest) @ (point - nearest)).max() <= 1e-12 * max(1, scale)
    on_it = generator.dirichlet(np.ones(tasks))
    assert np.allclose(project_on_simplex(on_it), on_it, atol=1e-15)


@pytest.mark.parametrize(("tasks", "rank"), [(2, 1), (3, 2), (5, 5), (10, 3), (30, 40)])
def test_shortest_in_hull(tasks: int, rank: int) -> None:
    for seed in range(30):
        rows = rows_of(seed, tasks, rank) + (0.5 if seed % 2 else 0.0)
        w = shortest_in_hull(rows @ rows.T)
        assert (w >= 0).all() and w.sum() == pytest.approx(1)
        d = w @ rows
        slack = rows @ d - d @ d
        size = float((rows**2).sum(1).max())
        assert slack.min() >= -1e-10 * size and np.abs(w * slack).max() <= 1e-10 * size


@pytest.mark.parametrize("power", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("tasks", [2, 3, 10, 30])
def test_power_equation(power: float, tasks: int) -> None:
    for seed in range(10):
        rows = rows_of(seed, tasks, 2 * tasks) * np.exp(rows_of(seed + 50, tasks, 1) * 3)
        w = power_equation(rows @ rows.T, power)
        assert (w > 0).all()
        np.testing.assert_allclose(rows @ (w @ rows), w**-power, rtol=1e-9)


def test_power_equation_where_gradients_cancel() -> None:
    rows = np.array([[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]])
    w = power_equation(rows @ rows.T, 1.0)
    assert np.isfinite(w).all() and w[2] == 0 and np.linalg.norm(w @ rows) <= 2


def test_pseudo_inverse_and_rank() -> None:
    rows = rows_of(0, 5, 3)
    matrix = rows @ rows.T
    values, vectors = eigen(matrix)
    assert len(values) == 3 and np.allclose((vectors * values) @ vectors.T, matrix)
    assert np.allclose(pseudo_inverse(matrix), np.linalg.pinv(matrix, rcond=1e-12))
    assert len(eigen(np.zeros((2, 2)))[0]) == 0
    # Noise of float32 is no rank when we say so.
    noisy = np.ones((2, 2)) + np.diag([3e-8, 0])
    assert len(eigen(noisy)[0]) == 2 and len(eigen(noisy, 1.2e-7)[0]) == 1
