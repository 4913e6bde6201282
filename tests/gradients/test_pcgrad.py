"""PCGrad against a float64 oracle on whole vectors."""

from __future__ import annotations

import itertools

import pytest
import torch

from mtlsearch.gradients import Step, get_strategy
from mtlsearch.gradients.gramian import gramian, weighted_rows
from mtlsearch.gradients.strategies.pcgrad import project_conflicts, random_orders

from .helpers import JACOBIANS, TOLERANCE, jacobian, pcgrad_oracle, relative_error


def test_fixed_example_of_two_tasks() -> None:
    rows = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    got = get_strategy("pcgrad").combine(rows)
    # By hand: ⟨g1, g2⟩ = −22, ‖g1‖² = 18, ‖g2‖² = 38, so the weights are 1 + 22/18 and 1 + 22/38.
    expected = (1 + 22 / 18) * rows[0] + (1 + 22 / 38) * rows[1]
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(got, torch.tensor([0.5848, 3.8012, 3.8012]).double(), rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("kind", JACOBIANS)
def test_agrees_with_the_oracle_in_any_order(kind: str, tasks: int, dtype: torch.dtype) -> None:
    rows = jacobian(kind, tasks, dtype)
    for seed in range(5):
        orders = random_orders(tasks, Step(seed=seed))
        weights = project_conflicts(gramian(rows), orders)
        got = weighted_rows(rows, range(tasks), weights)
        expected = pcgrad_oracle(rows, orders.tolist())
        assert relative_error(got, expected, rows, weights) <= TOLERANCE[dtype]


def test_agrees_with_the_oracle_in_every_order_of_three() -> None:
    rows = jacobian("conflicting", 3, torch.float64)
    permutations = list(itertools.permutations(range(3)))
    results = set()
    for orders in itertools.product(permutations, repeat=3):
        weights = project_conflicts(gramian(rows), torch.tensor(orders))
        got = weights @ rows
        assert relative_error(got, pcgrad_oracle(rows, orders), rows, weights) <= 1e-10
        results.add(round(float(got.norm()), 9))
    assert len(results) > 1, "the orders must matter on this Jacobian, or this test shows nothing"


def test_agrees_with_the_oracle_on_integers() -> None:
    # Small integers are full of ties, zero rows and exact orthogonality. Where an inner product is zero in
    # exact arithmetic, either sign of its rounding gives the same result to within that rounding.
    for seed in range(500):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(-4, 5, (2 + seed % 3, 3), generator=generator).double()
        orders = random_orders(len(rows), Step(seed=seed))
        weights = project_conflicts(gramian(rows), orders)
        error = (weights @ rows - pcgrad_oracle(rows, orders.tolist())).norm()
        assert error <= 1e-10 * (1 + float((weights.abs() * rows.norm(dim=1)).sum())), rows


def test_orders_are_uniform_and_keyed() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for index in range(1000):
        for order in random_orders(3, Step(index=index)).tolist():
            counts[tuple(order)] = counts.get(tuple(order), 0) + 1
    # 3000 draws of 6 permutations: 500 each, standard deviation 20.4.
    assert len(counts) == 6 and all(400 < count < 600 for count in counts.values())
    assert torch.equal(random_orders(5, Step(3, 7)), random_orders(5, Step(3, 7)))
    assert not torch.equal(random_orders(9, Step(3, 7)), random_orders(9, Step(7, 3)))
