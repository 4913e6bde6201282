"""Gradient strategies against their definitions: conditions of optimality, on whole vectors in float64.

Nothing here uses a Gramian that our code computed; weights come from the strategy, everything else from J.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mtlsearch.gradients import Step, get_strategy
from mtlsearch.gradients.gramian import gramian
from mtlsearch.gradients.strategies.gradvac import vaccinate
from mtlsearch.gradients.strategies.pcgrad import random_orders

from .helpers import JACOBIANS, jacobian, ready, relative_error

SIZES = (2, 3, 5, 10)


def weights_of(name: str, rows: Tensor, **hyperparameters: object) -> Tensor:
    strategy = get_strategy(name, **hyperparameters)
    return strategy.weigh(gramian(rows), Step(tasks=tuple(range(len(rows)))))  # type: ignore[attr-defined, no-any-return]


def cases(*kinds: str) -> list[tuple[str, int]]:
    return list(itertools.product(kinds or JACOBIANS, SIZES))


def on_simplex(count: int, tasks: int) -> Tensor:
    """Random points of the simplex, its corners among them, and points on its faces."""
    points = torch.distributions.Dirichlet(torch.full((tasks,), 0.3, dtype=torch.float64)).sample((count,))
    return torch.cat([points, torch.eye(tasks, dtype=torch.float64)])


@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_mgda_satisfies_kkt(kind: str, tasks: int) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    w = weights_of("mgda", rows)
    assert bool((w >= 0).all()) and float(w.sum()) == pytest.approx(1, abs=1e-14)
    d = w @ rows
    # ⟨g_t, d⟩ ≥ ‖d‖² for all t, with equality where w_t > 0.
    slack = (rows @ d - d @ d) / rows.norm(dim=1).max() ** 2
    assert float(slack.min()) >= -1e-12
    assert float((w * slack).abs().max()) <= 1e-12


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_cagrad_solves_its_problem(kind: str, tasks: int, c: float) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    d = weights_of("cagrad", rows, c=c) @ rows
    mean = rows.mean(0)
    size, radius = float(rows.norm(dim=1).max()), c * float(mean.norm())
    # Primal: in the ball, with worst improvement ν. Dual: F(w) = ⟨g_w, g_0⟩ + √φ‖g_w‖ ≥ ν for every w on
    # the simplex. So no point of the dual may come below ν, and one that we construct must touch it.
    assert float((d - mean).norm()) <= radius * (1 + 1e-9) + 1e-12 * size
    worst = float((rows @ d).min())

    def dual(points: Tensor) -> Tensor:
        vectors = points @ rows
        return vectors @ mean + radius * vectors.norm(dim=1)

    assert float(dual(on_simplex(2000, tasks)).min()) >= worst - 1e-9 * size**2
    y = (weights_of("cagrad", rows, c=c) - 1 / tasks).clamp(min=0)
    # With y = 0 the answer is g_0 itself, which is best where a zero gradient makes ν = 0.
    touched = float(dual((y / y.sum())[None])[0]) if float(y.sum()) > 0 else 0.0
    assert touched - worst <= 1e-9 * size**2 * max(1.0, 1 / c)


def test_cagrad_at_zero_is_the_mean() -> None:
    rows = jacobian("conflicting", 4, torch.float64)
    torch.testing.assert_close(get_strategy("cagrad", c=0).combine(rows), rows.mean(0))


def test_cagrad_where_gradients_cancel_stays_in_its_ball() -> None:
    # 0 is in the convex hull: the paper's g_w/‖g_w‖ does not exist, its primal problem does.
    rows = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    rows = torch.cat([rows, -rows[:1] - rows[1:2]])
    d = get_strategy("cagrad", c=0.5).combine(rows)
    assert float((d - rows.mean(0)).norm()) <= 0.5 * float(rows.mean(0).norm()) * (1 + 1e-12)
    around = torch.randn(5000, 3, dtype=torch.float64)
    around = rows.mean(0) + 0.5 * rows.mean(0).norm() * around / around.norm(dim=1, keepdim=True)
    assert float((around @ rows.T).min(1).values.max()) <= float((rows @ d).min()) + 1e-12


def test_cagrad_goes_on_when_a_task_is_done() -> None:
    # A zero gradient makes the worst improvement 0 for all: the nearest such d is the mean itself.
    rows = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(get_strategy("cagrad").combine(rows), rows.mean(0))


@pytest.mark.parametrize(("kind", "tasks"), cases())
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 10.0])
def test_fairgrad_satisfies_its_equation(kind: str, tasks: int, alpha: float) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    w = weights_of("fairgrad", rows, alpha=alpha)
    nonzero = rows.norm(dim=1) > 0
    assert bool((w[nonzero] > 0).all()) and not w[~nonzero].any()
    products = rows[nonzero] @ (w @ rows)
    # Nearly opposed gradients cancel to a thousandth, and their products to a millionth.
    tolerance = 1e-7 if kind == "near_opposed" else 1e-10
    torch.testing.assert_close(products, w[nonzero] ** (-1 / alpha), rtol=tolerance, atol=0)


@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_nash_mtl_satisfies_its_equation(kind: str, tasks: int) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    w = weights_of("nash_mtl", rows, max_norm=0)
    nonzero = rows.norm(dim=1) > 0
    products = rows[nonzero] @ (w @ rows)
    torch.testing.assert_close(products, 1 / w[nonzero], rtol=1e-7 if kind == "near_opposed" else 1e-10, atol=0)
    assert float((w @ rows).norm()) == pytest.approx(float(nonzero.sum()) ** 0.5, rel=1e-6)
    clipped = weights_of("nash_mtl", rows, max_norm=0.8)
    torch.testing.assert_close(clipped, 0.8 * w / float(nonzero.sum()) ** 0.5)


@pytest.mark.parametrize("factor", [1e-5, 1e5])
def test_nash_mtl_ignores_the_scale_of_each_loss(factor: float) -> None:
    rows = jacobian("conflicting", 3, torch.float64)
    other = rows * torch.tensor([factor, 1.0, 3.0])[:, None]
    nash = get_strategy("nash_mtl")
    torch.testing.assert_close(nash.combine(other), nash.combine(rows), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "tasks"), [case for case in cases() if case[0] != "duplicate_rows" or case[1] == 2])
def test_imtl_g_has_equal_projections(kind: str, tasks: int) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    w = weights_of("imtl_g", rows)
    assert float(w.sum()) == pytest.approx(1, abs=1e-9)
    units = rows[rows.norm(dim=1) > 0]
    units = units / units.norm(dim=1, keepdim=True)
    projections = units @ (w @ rows)
    size = float((w.abs() * rows.norm(dim=1)).sum())
    assert float(projections.max() - projections.min()) <= 1e-9 * size
    # And it is the paper's formula, with a determinant of T − 1 differences.
    if kind in ("random", "conflicting", "small"):
        differences = rows[:1] - rows[1:]
        along = units[:1] - units[1:]
        alpha = torch.linalg.solve((differences @ along.T).T, along @ rows[0])
        torch.testing.assert_close(w[1:], alpha, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_config_has_equal_positive_cosines(kind: str, tasks: int) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    d = weights_of("config", rows) @ rows
    units = rows[rows.norm(dim=1) > 0]
    units = units / units.norm(dim=1, keepdim=True)
    cosines = units @ (d / d.norm())
    assert float(cosines.max() - cosines.min()) <= 1e-9 and float(cosines.min()) > 0
    assert float(d.norm()) == pytest.approx(float((rows @ (d / d.norm())).sum()), rel=1e-6)


@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_aligned_mtl_makes_singular_values_equal(kind: str, tasks: int) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    # The balanced Jacobian from a singular value decomposition: U·diag(s)·Vᵀ -> s_min·U·Vᵀ.
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    kept = s > s[0] * 1e-7
    balanced = s[kept][-1] * u[:, kept] @ v[kept]
    w = weights_of("aligned_mtl", rows)
    assert relative_error(w @ rows, balanced.mean(0), rows, w) <= 1e-9


def projected(vector: Tensor, rows: Tensor, d: Tensor) -> float:
    """How far d is from being the projection of a vector on {d : J·d ≥ 0}: the largest violation of KKT."""
    lengths = rows.norm(dim=1)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    size = float(vector.norm()) or 1.0
    feasible = float(((rows @ d) / lengths).min()) / size
    # d − vector = Σ μ_t·g_t with μ ≥ 0 and μ_t·⟨g_t, d⟩ = 0, so it is orthogonal to d.
    complementary = abs(float((d - vector) @ d)) / size**2
    return max(-feasible, complementary)


@pytest.mark.parametrize(("kind", "tasks"), cases())
def test_upgrad_and_dualproj_project_on_the_dual_cone(kind: str, tasks: int) -> None:
    from mtlsearch.gradients.solvers import _EPS
    from mtlsearch.gradients.strategies.upgrad import project_on_dual_cone

    rows = jacobian(kind, tasks, torch.float64)
    total = torch.zeros_like(rows[0])
    for start in torch.cat(
        [torch.eye(tasks, dtype=torch.float64), torch.full((1, tasks), 1 / tasks, dtype=torch.float64)]
    ):
        v = torch.from_numpy(project_on_dual_cone(gramian(rows).numpy(), start.numpy(), _EPS))
        d = v @ rows
        assert bool((v >= start).all()), "μ ≥ 0"
        assert projected(start @ rows, rows, d) <= 1e-9
        if len(torch.nonzero(start)) == 1:
            total += d / tasks
    w = weights_of("upgrad", rows)
    assert relative_error(w @ rows, total, rows, w) <= 1e-9
    w = weights_of("dualproj", rows)
    assert relative_error(w @ rows, d, rows, w) <= 1e-9


@pytest.mark.parametrize(("kind", "tasks"), cases("random", "conflicting", "small", "zero_row"))
@pytest.mark.parametrize("tau", [0.02, 0.5])
def test_pcd_solves_its_problem(kind: str, tasks: int, tau: float) -> None:
    rows = jacobian(kind, tasks, torch.float64)
    w = weights_of("pcd", rows, tau=tau, epsilon=0)
    d = w @ rows
    assert float(d.norm()) == pytest.approx(float(rows[0].norm()), rel=1e-9)
    # After one step the averages are the squares themselves, so the problem is posed in unit vectors.
    lengths = rows.norm(dim=1)
    units = rows / torch.where(lengths > 0, lengths, 1.0)[:, None]
    direction = d / (w[0] * lengths[0])
    multipliers = direction - units[0]
    slack = units[1:] @ direction - tau * units[1:].square().sum(1)
    assert float(slack.min()) >= -1e-9
    mu = w[1:] * lengths[1:] / (w[0] * lengths[0])
    assert float(mu.min()) >= 0 and float((mu * slack).abs().max()) <= 1e-9
    torch.testing.assert_close(mu @ units[1:], multipliers, rtol=1e-9, atol=1e-9)


def gradvac_oracle(rows: Tensor, orders: list[list[int]], targets: Tensor, beta: float) -> Tensor:
    """Algorithm 1 on whole vectors, one task after the other; `targets` is updated in place."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders):
        vector = rows[i].clone()
        for j in order:
            if j == i or not rows[j].any() or not vector.any():
                continue
            cosine = float(vector @ rows[j] / (vector.norm() * rows[j].norm()))
            wanted = float(targets[i, j])
            if cosine < wanted and abs(wanted) < 1:
                apart, before = (1 - wanted**2) ** 0.5, max(0.0, 1 - cosine**2) ** 0.5
                step = vector.norm() * (wanted * before - cosine * apart) / (rows[j].norm() * apart)
                vector = vector + step * rows[j]
                reached = float(vector @ rows[j] / (vector.norm() * rows[j].norm()))
                assert reached == pytest.approx(wanted, abs=1e-6), "the step must reach the target"
            targets[i, j] = (1 - beta) * wanted + beta * cosine
        total += vector
    return total


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("kind", JACOBIANS)
def test_gradvac_agrees_with_the_oracle_over_many_steps(kind: str, tasks: int) -> None:
    targets = torch.zeros(tasks, tasks, dtype=torch.float64)
    expected_targets = targets.clone()
    for index in range(6):
        rows = jacobian(kind if index % 2 else "random", tasks, torch.float64, seed=index, width=50)
        orders = random_orders(tasks, Step(index=index))
        weights, targets = vaccinate(gramian(rows), orders, targets, 0.3)
        expected = gradvac_oracle(rows, orders.tolist(), expected_targets, 0.3)
        assert relative_error(weights @ rows, expected, rows, weights) <= 1e-9
        torch.testing.assert_close(targets, expected_targets, rtol=0, atol=1e-9)
    assert float(targets.abs().max()) > 1e-4, "targets must have moved, or this test shows nothing"


def test_gradvac_starts_as_pcgrad() -> None:
    for kind in JACOBIANS:
        rows = jacobian(kind, 4, torch.float64)
        got, expected = get_strategy("gradvac").combine(rows), get_strategy("pcgrad").combine(rows)
        assert relative_error(got, expected, rows) <= 1e-8


def test_gradvac_keeps_the_targets_of_an_absent_task() -> None:
    strategy = ready("gradvac", 3, beta=0.5)
    rows = jacobian("conflicting", 3, torch.float64)
    names = ("a", "b", "c")
    strategy.combine(rows, Step(names=names, tasks=(0, 1, 2)))
    before = strategy.targets.clone()  # type: ignore[attr-defined]
    strategy.combine(rows[[0, 2]], Step(index=1, names=names, tasks=(0, 2)))
    after = strategy.targets  # type: ignore[attr-defined]
    assert torch.equal(after[1], before[1]) and torch.equal(after[:, 1], before[:, 1])
    assert not torch.equal(after[0, 2], before[0, 2])


@pytest.mark.parametrize("tasks", [2, 5])
def test_rgw_weights_are_those_of_rlw(tasks: int) -> None:
    rows = jacobian("random", tasks, torch.float64)
    draws = torch.randn(tasks, dtype=torch.float64, generator=Step(seed=3, index=4).generator())
    step = Step(seed=3, index=4, tasks=tuple(range(tasks)))
    got = get_strategy("rgw").combine(rows, step)
    torch.testing.assert_close(got, draws.softmax(0) @ rows)
    losses = get_strategy("rlw").weigh(torch.ones(tasks, dtype=torch.float64), step)  # type: ignore[attr-defined]
    torch.testing.assert_close(losses, draws.softmax(0))
