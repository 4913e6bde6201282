from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtlsearch.faces.losses import L1, MSE, SmoothL1, Wing, wing


def test_wing_by_hand() -> None:
    """w = 15, ε = 3 of Basak 2023, eq. 1."""
    constant = 15 - 15 * math.log(1 + 15 / 3)
    values = wing(torch.tensor([-20.0, -3.0, 0.0, 6.0, 15.0], dtype=torch.float64), w=15, epsilon=3)
    expected = [20 - constant, 15 * math.log(2), 0.0, 15 * math.log(3), 15 - constant]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


@given(st.floats(0.5, 30), st.floats(0.1, 10))
def test_wing_is_continuous_at_w_and_steeper_near_zero(w: float, epsilon: float) -> None:
    x = torch.tensor([w * (1 - 1e-9), w * (1 + 1e-9)], dtype=torch.float64)
    below, above = wing(x, w, epsilon)
    assert below.item() == pytest.approx(above.item(), abs=1e-6)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    near = zero + 1e-6
    (slope,) = torch.autograd.grad(wing(near, w, epsilon), zero)
    assert slope.item() == pytest.approx(w / epsilon, rel=1e-3)


def test_the_others_by_hand() -> None:
    predicted, target = torch.tensor([0.0, 3.0]), torch.tensor([0.5, 1.0])
    assert L1()(predicted, target).item() == pytest.approx(1.25)
    assert MSE()(predicted, target).item() == pytest.approx((0.25 + 4) / 2)
    assert SmoothL1(beta=1.0)(predicted, target).item() == pytest.approx((0.125 + 1.5) / 2)
    assert Wing(w=1.0, epsilon=1.0)(predicted, target).item() == pytest.approx(
        (math.log(1.5) + 2 - (1 - math.log(2))) / 2
    )


@pytest.mark.parametrize("loss", [L1(), MSE(), SmoothL1(), Wing()])
def test_every_loss_is_zero_at_the_target_with_a_finite_gradient(loss: object) -> None:
    predicted = torch.zeros(2, 3, requires_grad=True)
    value = loss(predicted, torch.zeros(2, 3))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(predicted.grad).all()
