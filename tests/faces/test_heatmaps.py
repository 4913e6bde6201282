"""Heatmaps: where cells lie in the crop, what perfect, empty and hidden maps give, precision, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsearch.faces.heads.heatmaps import (
    HeatmapHead,
    SoftmaxExpectation,
    SumExpectation,
    cells_to_pixels,
    coordinate_loss,
    heatmap_loss,
    pixels_to_cells,
    target_heatmaps,
)

SUM, SOFTMAX = SumExpectation(), SoftmaxExpectation()


def perfect(x: float, y: float, cells: int = 64) -> torch.Tensor:
    """(h, w)"""
    return target_heatmaps(torch.tensor([[[x, y]]]), None, cells)[0, 0]


@pytest.mark.parametrize(("image_size", "cells"), [(256, 64), (64, 16), (96, 24), (120, 30)])
def test_a_cell_s_centre_is_the_mean_of_the_pixels_it_covers(image_size: int, cells: int) -> None:
    pixels = torch.arange(image_size, dtype=torch.float32).view(cells, -1).mean(1)
    columns = torch.stack([torch.arange(cells), torch.zeros(cells)], -1)
    torch.testing.assert_close(cells_to_pixels(columns, image_size, cells)[:, 0], pixels)
    back = pixels_to_cells(cells_to_pixels(columns, image_size, cells), image_size, cells)
    torch.testing.assert_close(back, columns, atol=1e-4, rtol=0)


def test_a_bright_pixel_averaged_down_decodes_to_where_it_is() -> None:
    """The same convention as pooling and strided convolutions have, from images and not from the formula."""
    image = torch.zeros(1, 1, 256, 256)
    image[0, 0, 80:84, 200:204] = 1.0  # rows 80 to 83, columns 200 to 203
    found = cells_to_pixels(SUM(torch.nn.functional.avg_pool2d(image, 4)), 256, 64)
    torch.testing.assert_close(found[0, 0], torch.tensor([201.5, 81.5]), atol=0.1, rtol=0)


def test_the_map_s_first_axis_is_y() -> None:
    heatmap = perfect(12, 50)
    assert divmod(int(heatmap.argmax()), 64) == (50, 12)
    assert heatmap.max() == 1


@settings(deadline=None)
@given(x=st.floats(2, 61), y=st.floats(2, 61))
def test_a_perfect_heatmap_decodes_to_its_landmark(x: float, y: float) -> None:
    target = torch.tensor([x, y])
    assert (SUM(perfect(x, y)) - target).norm() < 0.1
    assert (SOFTMAX(perfect(x, y)) - target).abs().max() < 0.3
    assert (SOFTMAX(perfect(round(x), round(y))) - target.round()).norm() < 0.1


def test_equation_3_as_printed_would_not() -> None:
    """(12, 50) of 64² would come out at 2π times that."""
    heatmap = perfect(12, 50)
    printed = torch.stack([(heatmap.sum(0) * torch.arange(64)).sum(), (heatmap.sum(1) * torch.arange(64)).sum()])
    torch.testing.assert_close(printed, 2 * math.pi * torch.tensor([12.0, 50.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_an_empty_map_gives_the_centre_and_a_finite_gradient(level: float) -> None:
    maps = torch.full((2, 5, 16, 24), level, requires_grad=True)
    found = SUM(maps)
    assert torch.equal(found, torch.tensor([11.5, 7.5]).expand(2, 5, 2))
    (gradient,) = torch.autograd.grad(found.square().sum(), maps)
    assert torch.isfinite(gradient).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([0.0, 1e-30, 1e-6, 1.0, -1.0, 1e6, -1e6]), min_size=16, max_size=16))
@pytest.mark.parametrize("expectation", [SUM, SOFTMAX])
def test_any_map_decodes_into_itself_with_a_finite_gradient(
    expectation: SumExpectation | SoftmaxExpectation, numbers: list[float]
) -> None:
    maps = torch.tensor(numbers).view(1, 1, 4, 4).requires_grad_()
    found = expectation(maps)
    assert ((found >= 0) & (found <= 3)).all()
    (gradient,) = torch.autograd.grad(found.sum(), maps)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("expectation", [SUM, SOFTMAX])
def test_the_expectation_is_in_float32_under_autocast(expectation: SumExpectation | SoftmaxExpectation) -> None:
    """A bfloat16 result would be whole cells at best: it has no number between 50 and 50.25."""
    maps = perfect(50.13, 12.4).bfloat16()[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        found = expectation(maps)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expectation(maps.float()), atol=1e-5, rtol=0)
    assert (SUM(maps) - torch.tensor([50.13, 12.4])).abs().max() < 0.05


def test_a_hidden_landmark_has_an_empty_target_and_no_coordinate_error() -> None:
    visible = torch.tensor([[True, False]])
    landmarks = torch.tensor([[[20.0, 30.0], [math.nan, math.nan]]])
    maps = target_heatmaps(landmarks, visible, 64)
    assert maps[0, 0].max() == 1
    assert (maps[0, 1] == 0).all()
    found = torch.tensor([[[23.0, 34.0], [5.0, 5.0]]], requires_grad=True)
    loss = coordinate_loss(found, landmarks, visible)
    assert loss.item() == pytest.approx(25)
    assert coordinate_loss(found, landmarks, visible, squared=False).item() == pytest.approx(5)
    (gradient,) = torch.autograd.grad(loss, found)
    assert gradient.tolist() == [[[6.0, 8.0], [0.0, 0.0]]]


def test_a_batch_without_visible_landmarks_has_no_coordinate_error() -> None:
    found = torch.randn(2, 3, 2, requires_grad=True)
    for squared in (True, False):
        loss = coordinate_loss(found, torch.randn(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool), squared)
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, found)
        assert (gradient == 0).all()


def test_equation_4_of_an_empty_map_is_the_gaussian_s_energy() -> None:
    target = perfect(30.3, 20.8)[None, None]
    assert heatmap_loss(torch.zeros_like(target), target).item() == pytest.approx(math.pi, rel=1e-3)
    assert heatmap_loss(torch.zeros_like(target), target, squared=False).item() == pytest.approx(math.pi**0.5, rel=1e-3)
    assert heatmap_loss(target, target) == 0


@pytest.mark.parametrize("deconvolutions", [0, 1, 3])
def test_the_head_doubles_its_map_with_every_deconvolution(deconvolutions: int) -> None:
    head = HeatmapHead(12, points=21, deconvolutions=deconvolutions, channels=8)
    side = 4 * 2**deconvolutions
    assert head(torch.randn(2, 12, 4, 4)).shape == (2, 21, side, side)
