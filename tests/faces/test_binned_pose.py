"""Binned pose: bins and their centres, the expectation, the loss against its definition, precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mtlsearch.faces.heads.binned_pose import (
    BinnedPoseHead,
    Bins,
    bin_cross_entropy,
    binned_pose_loss,
    constant_pose_loss,
    expected_angles,
)

HOPENET = Bins()


def test_the_default_is_hopenet_s() -> None:
    assert (HOPENET.count, HOPENET.width) == (66, 3.0)
    centres = HOPENET.centres()
    assert (centres[0], centres[-1]) == (-97.5, 97.5)
    torch.testing.assert_close(centres.diff(), torch.full((65,), 3.0))


@settings(deadline=None)
@given(st.integers(2, 200), st.floats(10, 180), st.floats(-1, 1))
def test_an_angle_lies_in_its_bin(count: int, limit: float, share: float) -> None:
    bins = Bins(count=count, limit=limit)
    angle = torch.tensor(share * limit)
    centre = bins.centres()[bins.indices(angle)]
    assert (angle - centre).abs() <= bins.width / 2 + 1e-3


def test_angles_beyond_the_range_are_in_the_end_bins() -> None:
    angles = torch.tensor([-1e6, -99.0, -98.999, 98.999, 99.0, 120.0])
    assert HOPENET.indices(angles).tolist() == [0, 0, 0, 65, 65, 65]
    assert Bins(count=80, limit=120).indices(torch.tensor([99.5])).tolist() == [73]


def test_a_certain_bin_is_its_centre_and_a_flat_distribution_0() -> None:
    certain = torch.full((66,), -1e4).index_fill(0, torch.tensor([40]), 0.0)
    assert expected_angles(certain, HOPENET) == -99 + 40.5 * 3
    assert expected_angles(torch.zeros(2, 3, 66), HOPENET).abs().max() < 1e-4


def test_two_bins_give_the_angle_between_them() -> None:
    logits = torch.full((66,), -1e4)
    logits[40], logits[41] = math.log(0.75), math.log(0.25)
    assert expected_angles(logits, HOPENET).item() == pytest.approx(-99 + 40.5 * 3 + 0.25 * 3, abs=1e-4)


def test_the_expectation_is_in_float32_under_autocast() -> None:
    """In bfloat16, 60° and 60.25° are one number."""
    logits = torch.randn(8, 3, 66, generator=torch.Generator().manual_seed(0)).bfloat16() * 3
    with torch.autocast("cpu", torch.bfloat16):
        angles = expected_angles(logits, HOPENET)
        loss = binned_pose_loss(logits, torch.full((8, 3), 60.1), HOPENET, alpha=1.0)
    assert angles.dtype == loss.dtype == torch.float32
    exact = (logits.double().softmax(-1) @ HOPENET.centres().double()).float()
    torch.testing.assert_close(angles, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("squared", "alpha"), [(True, 1.0), (False, 1.0), (True, 0.0), (True, 2.5)])
def test_equations_1_and_2(squared: bool, alpha: float) -> None:
    """Written out, with one-hot targets."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 3, 66, generator=generator)
    angles = 200 * torch.rand(5, 3, generator=generator) - 100
    probability = logits.softmax(-1)
    one_hot = torch.zeros_like(logits).scatter_(2, HOPENET.indices(angles)[..., None], 1.0)
    cross_entropy = -(one_hot * probability.log()).sum(-1)
    error = ((probability * HOPENET.centres()).sum(-1) - angles).abs()
    expected = (error**2 if squared else error).mean() + alpha * cross_entropy.mean()
    torch.testing.assert_close(binned_pose_loss(logits, angles, HOPENET, alpha, squared), expected)
    torch.testing.assert_close(bin_cross_entropy(logits, angles, HOPENET), cross_entropy.mean())


def test_no_constant_output_has_a_smaller_cross_entropy_than_the_constant_loss_says() -> None:
    angles = 30 * torch.randn(400, 3, generator=torch.Generator().manual_seed(2))
    value = constant_pose_loss(angles, HOPENET, alpha=1.0)
    spread = angles.var(0, correction=0).mean()
    shares = torch.stack([torch.bincount(HOPENET.indices(angle), minlength=66) for angle in angles.T]) / 400
    best = bin_cross_entropy((shares + 1e-12).log().expand(400, 3, 66), angles, HOPENET)
    torch.testing.assert_close(value, spread + best)
    assert bin_cross_entropy(torch.zeros(400, 3, 66), angles, HOPENET) > best


def test_the_head_has_one_layer_for_each_angle() -> None:
    head = BinnedPoseHead(12, Bins(count=10, limit=50))
    features = torch.randn(2, 12, 3, 3)
    assert head(features).shape == (2, 3, 10)
    pooled = features.mean((2, 3))
    torch.testing.assert_close(head(features)[:, 1], head.angles[1](pooled))


@pytest.mark.parametrize("wrong", [{"count": 1}, {"limit": 0}, {"count": 66, "width": 3}])
def test_bins_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Bins(**wrong)  # type: ignore[arg-type]
