"""Predictions come back to the photograph's pixels, whatever the crop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtlsearch.faces.augmentation import Augmentation, augment
from mtlsearch.faces.geometry import crop_from_box
from mtlsearch.faces.prediction.predicting import normalize, predict_crops, whole_image


class _Brightest(nn.Module):
    """Finds the middle of what is bright: one landmark, and a dense point half a pixel to its right."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = (images.mean(1) - images.mean(1).amin((1, 2), keepdim=True)).double()
        steps = torch.arange(images.shape[-1], dtype=torch.float64)
        x = (weights.sum(1) * steps).sum(1) / weights.sum((1, 2))
        y = (weights.sum(2) * steps).sum(1) / weights.sum((1, 2))
        return torch.stack([x, y, torch.ones_like(x)], 1)[:, None]

    def decode(self, output: torch.Tensor) -> Any:
        dense = output + torch.tensor([0.5, 0.0, 0.0])
        return SimpleNamespace(landmarks=output, angles=torch.tensor([[1.0, 2.0, 3.0]] * len(output)), dense=dense)


@pytest.mark.parametrize("size", [24, 64, 256])
def test_a_bright_spot_is_found_where_it_is(size: int) -> None:
    y, x = np.mgrid[:90, :140]
    spot = 255 * np.exp(-((x - 102) ** 2 + (y - 42) ** 2) / (2 * 4**2))
    image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, 2)
    crops = [
        whole_image(image),
        crop_from_box(np.array([85.0, 25.0, 115.0, 60.0])),
        np.array([70.0, 10.0, 190.0, 130.0]),  # reaches beyond the image
        np.array([81.2, 20.7, 125.9, 65.4]),
    ]
    found = predict_crops(_Brightest(), size, image, crops)  # type: ignore[arg-type]
    for face, crop in zip(found, crops):
        scale = (crop[2] - crop[0]) / size
        np.testing.assert_allclose(face.landmarks[0, :2], (102, 42), atol=0.02 + 0.02 * scale)
        assert face.landmarks[0, 2] == pytest.approx(scale)
        assert face.dense is not None
        np.testing.assert_allclose(face.dense - face.landmarks, [[0.5 * scale, 0, 0]], atol=1e-9)
        np.testing.assert_array_equal(face.angles, [1, 2, 3])
    assert [face.crop.tolist() for face in found] == [crop.tolist() for crop in crops]


def test_a_whole_image_is_padded_to_a_square_about_its_centre() -> None:
    assert whole_image(np.zeros((90, 140, 3), np.uint8)).tolist() == [-0.5, -25.5, 139.5, 114.5]
    assert whole_image(np.zeros((4, 2, 3), np.uint8)).tolist() == [-1.5, -0.5, 2.5, 3.5]


def test_many_faces_of_one_image_are_those_of_one_at_a_time() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    crops = [np.array([x, 5.0, x + 30, 35.0]) for x in np.linspace(0, 40, 70)]
    together = predict_crops(_Brightest(), 16, image, crops)  # type: ignore[arg-type]
    for crop, face in zip(crops, together, strict=True):
        (alone,) = predict_crops(_Brightest(), 16, image, [crop])  # type: ignore[arg-type]
        np.testing.assert_allclose(face.landmarks, alone.landmarks, atol=1e-9)
    assert predict_crops(_Brightest(), 16, image, []) == []  # type: ignore[arg-type]


def test_images_are_normalised_as_in_training() -> None:
    images = torch.randint(0, 256, (3, 20, 20, 3), dtype=torch.uint8)
    expected, _ = augment(images, {}, Augmentation.off(), 20)
    torch.testing.assert_close(normalize(images), expected, rtol=0, atol=1e-5)
