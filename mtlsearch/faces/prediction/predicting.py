"""Faces of a photograph through a trained system: crops in, landmarks and angles back in the photograph's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mtlsearch.faces.datasets.crops import crop_affine, warp
from mtlsearch.faces.geometry import invert_affine, transform_points
from mtlsearch.faces.systems import System

#: faces at a time
_BATCH = 32


@dataclass(frozen=True)
class FacePrediction:
    """A face in the pixels of its photograph.

    crop (4,): left, top, right, bottom of the square that the network saw; landmarks (K, 2 or 3), z in the same scale;
    angles (3,): degrees, pitch, yaw, roll; dense (D, 3) or None.
    """

    crop: Floats
    landmarks: Floats
    angles: Floats
    dense: Floats | None = None


def normalize(images: torch.Tensor) -> torch.Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32 with ImageNet's mean and standard deviation, as in training."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def predict_crops(model: System, image_size: int, image: Bytes, crops: Sequence[Floats]) -> list[FacePrediction]:
    """The faces of an image (H, W, 3) uint8 RGB within square crops (4,), see `geometry.crop_from_box`.

    model: a `System` in eval mode; image_size: the side of its input. What a crop shows beyond the image is black. The
    angles are those of the crop, which has the image's orientation. Raises InputError where the network gives numbers
    that are not finite.
    """
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(crops), _BATCH):
        squares = [np.asarray(crop, float) for crop in crops[start : start + _BATCH]]
        affines = [crop_affine(square, image_size, image_size) for square in squares]
        pixels = np.stack([warp(image, affine, image_size) for affine in affines])
        with torch.inference_mode():
            prediction = model.decode(model(normalize(torch.from_numpy(pixels).to(device))))
        if not (prediction.landmarks.isfinite().all() and prediction.angles.isfinite().all()):
            raise InputError("the network's prediction is not a number")
        for i, (square, affine) in enumerate(zip(squares, affines)):
            back = invert_affine(affine)
            dense = prediction.dense
            found.append(
                FacePrediction(
                    square,
                    transform_points(_numpy(prediction.landmarks[i]), back),
                    _numpy(prediction.angles[i]),
                    None if dense is None else transform_points(_numpy(dense[i]), back),
                )
            )
    return found


def whole_image(image: Bytes) -> Floats:
    """The square crop of a whole image (H, W, 3): its longer side, about its centre. (4,) left, top, right, bottom."""
    height, width = image.shape[:2]
    centre = np.array([width - 1, height - 1]) / 2
    half = max(width, height) / 2
    return np.concatenate([centre - half, centre + half])


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.cpu().double().numpy()
