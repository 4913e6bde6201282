from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtlsearch.faces.metrics import nme, nme_by_yaw, pose_error


def test_nme_by_hand() -> None:
    """A 40×90 box has the size 60; two of four points are off by 3 and 4 pixels together in one direction each."""
    target = np.array([[[0.0, 0.0], [40.0, 0.0], [0.0, 90.0], [40.0, 90.0]]])
    predicted = target + np.array([[[3.0, 4.0], [0.0, 0.0], [0.0, 6.0], [0.0, 0.0]]])
    assert nme(predicted, target) == pytest.approx([100 * (5 + 0 + 6 + 0) / 4 / 60])


def test_the_box_is_that_of_the_target_and_depth_does_not_count() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 68, 3)) * [40, 50, 60]
    predicted = target + rng.normal(size=target.shape)
    by_hand = [
        100 * np.linalg.norm(p[:, :2] - g[:, :2], axis=1).mean() / math.sqrt(np.prod(np.ptp(g[:, :2], axis=0)))
        for p, g in zip(predicted, target)
    ]
    assert nme(predicted, target) == pytest.approx(by_hand)
    moved = predicted + np.array([0, 0, 100])
    assert nme(moved, target) == pytest.approx(by_hand)
    assert nme(target, predicted) != pytest.approx(by_hand)


@given(st.floats(0.1, 10), st.floats(-100, 100))
def test_nme_does_not_depend_on_scale_or_place(scale: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(3, 68, 2)) * 50
    predicted = target + rng.normal(size=target.shape)
    assert nme(predicted * scale + shift, target * scale + shift) == pytest.approx(nme(predicted, target), rel=1e-6)


def test_numpy_and_torch_give_the_same_and_their_own_kind() -> None:
    rng = np.random.default_rng(1)
    target, predicted = rng.normal(size=(2, 4, 68, 2))
    from_numpy, from_torch = nme(predicted, target), nme(torch.tensor(predicted), torch.tensor(target))
    assert isinstance(from_numpy, np.ndarray)
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_array_equal(from_numpy, from_torch.numpy())
    assert isinstance(pose_error(predicted[0, :, :1].repeat(3, 1), target[0, :, :1].repeat(3, 1)), np.ndarray)


def test_bins_hold_their_published_edges() -> None:
    yaw = np.array([0, -30, 30.1, -60, 60.1, -95, 120.0])
    result = nme_by_yaw(np.array([1.0, 3, 10, 20, 5, 6, 7]), yaw)
    assert result.nme_0_30 == 2
    assert result.nme_30_60 == 15
    assert result.nme_60_90 == 6, "the last bin is not capped at 90"
    assert result.mean_of_bins == pytest.approx((2 + 15 + 6) / 3)
    assert result.std_of_bins == pytest.approx(np.std([2, 15, 6]))
    assert result.whole_set == pytest.approx(52 / 7)


def test_an_empty_bin_makes_the_published_figure_nan_rather_than_another_number() -> None:
    result = nme_by_yaw(np.array([1.0, 2.0]), np.array([0.0, 45.0]))
    assert math.isnan(result.nme_60_90)
    assert math.isnan(result.mean_of_bins)
    assert result.whole_set == 1.5


@given(st.floats(-720, 720), st.floats(-720, 720))
def test_pose_error_wraps(one: float, other: float) -> None:
    error = pose_error(np.full((1, 3), one), np.full((1, 3), other))
    assert (error >= 0).all()
    assert (error <= 180 + 1e-9).all()
    assert math.cos(math.radians(error[0, 0])) == pytest.approx(math.cos(math.radians(one - other)), abs=1e-9)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, K, 2 or 3\)"):
        nme(np.zeros((68, 2)), np.zeros((68, 2)))
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        pose_error(np.zeros((4, 2)), np.zeros((4, 2)))
