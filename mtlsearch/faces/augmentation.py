"""Batched augmentation: stored crops (B, H, H, 3) uint8 to network inputs (B, 3, S, S) float32, targets with them.

What each transform means, in this order:

1. flip: the stored image is mirrored left to right (landmarks permuted, coefficients times their parity);
2. similarity: rotation about the image's centre, clockwise as seen, scale, shift; sampled bilinearly, the stored
   image's edge continues outside it;
3. tone, on values v in [0, 1] *before* interpolation: v^gamma, then (v − ½)·contrast + ½ + brightness, clipped;
4. grey: every channel becomes the luma 0.299 R + 0.587 G + 0.114 B;
5. noise: σ times a fixed tile of standard normals, at a random offset;
6. normalisation with ImageNet's mean and standard deviation;
7. erasing: a rectangle is set to 0 (the mean colour).

Two implementations, tested against each other: `transform_reference` in plain torch for any device, and a fused numba
pass over CPU bytes, `augmentation_cpu`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mtlsearch.errors import InputError
from mtlsearch.faces import geometry
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.training.schema import Section

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
NOISE_TILE = 256

Labels = dict[str, Tensor]


Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Section):
    """Strengths of the transforms; `Augmentation.off()` is the plain centre crop of evaluation.

    rotation: degrees, uniform in ±; scale: log of the factor, uniform in ±; shift: share of S, uniform in ±; flip,
    grey, erase: probabilities; brightness, contrast: uniform in ± (added; around 1); gamma: log of the exponent,
    uniform in ±; noise: largest σ, uniform from 0; erase_size: largest side of the erased rectangle, share of S.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    scale: Share = 0.10
    shift: Share = 0.04
    flip: Share = 0.5
    brightness: Share = 0.10
    contrast: Share = 0.20
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.25
    grey: Share = 0.10
    noise: Share = 0.03
    erase: Share = 0.20
    erase_size: Share = 0.35

    @classmethod
    def off(cls) -> Augmentation:
        """No augmentation: the centre crop."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))

    def only(self, *names: str) -> Augmentation:
        """This one with every transform off but the named ones."""
        return Augmentation.off().model_copy(update={name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Draws:
    """What one batch drew, on the CPU (B samples). See the module's text for the meaning.

    flip (B,) bool; turn (B,) degrees; affine (B, 2, 3) float64: pixels of the (already flipped) stored image to pixels
    of the output; table (B, 256) float32: tone of a byte; grey (B,) float32 0 or 1; sigma (B,) float32; offset (B, 2)
    int64 rows, columns; erased (B, 4) int64: top, left, bottom, right, exclusive.
    """

    flip: Tensor
    turn: Tensor
    affine: Tensor
    table: Tensor
    grey: Tensor
    sigma: Tensor
    offset: Tensor
    erased: Tensor


def draw(
    augmentation: Augmentation,
    batch: int,
    stored_size: int,
    image_size: int,
    output_size: int,
    generator: torch.Generator | None = None,
) -> Draws:
    """Random numbers of a batch. generator: a CPU generator, so that CPU and GPU runs draw alike."""
    a = augmentation
    u = torch.rand(batch, 16, generator=generator, dtype=torch.float64)
    signed = 2 * u - 1
    turn = a.rotation * signed[:, 0]
    factor = torch.exp(a.scale * signed[:, 1]) * (output_size / image_size)
    shift = a.shift * output_size * signed[:, 2:4]
    cosine, sine = factor * torch.cos(torch.deg2rad(turn)), factor * torch.sin(torch.deg2rad(turn))
    linear = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    before, after = (stored_size - 1) / 2, (output_size - 1) / 2
    offset = after + shift - linear.sum(-1) * before
    affine = torch.cat([linear, offset[..., None]], -1)

    ramp = torch.arange(256, dtype=torch.float64) / 255
    tone = ramp ** torch.exp(a.gamma * signed[:, 4:5])
    table = ((tone - 0.5) * (1 + a.contrast * signed[:, 5:6]) + 0.5 + a.brightness * signed[:, 6:7]).clamp(0, 1)

    sides = a.erase_size * output_size * (0.3 + 0.7 * u[:, 7:9]) * (u[:, 9:10] < a.erase)
    corner = u[:, 10:12] * (output_size - sides)
    erased = torch.cat([corner, corner + sides], -1).round().long()
    return Draws(
        flip=u[:, 12] < a.flip,
        turn=turn,
        affine=affine,
        table=table.float(),
        grey=(u[:, 13] < a.grey).float(),
        sigma=(a.noise * u[:, 14]).float(),
        offset=torch.stack([u[:, 15] * NOISE_TILE, (u[:, 15] * NOISE_TILE * 97) % NOISE_TILE], -1).long(),
        erased=erased,
    )


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """(256, 256, 3) float32 standard normals, the same everywhere."""
    return np.random.default_rng(256).standard_normal((NOISE_TILE, NOISE_TILE, 3), dtype=np.float32)


@lru_cache(maxsize=4)
def _noise_on(device: torch.device) -> Tensor:
    return torch.from_numpy(noise_tile()).permute(2, 0, 1).contiguous().to(device)


def sampling_matrix(draws: Draws, stored_size: int) -> Tensor:
    """(B, 2, 3) float64: pixels of the output to pixels of the stored image as it lies in memory (flips included)."""
    linear, offset = draws.affine[..., :2], draws.affine[..., 2]
    inverse = linear.mT / (linear[:, 0, 0] ** 2 + linear[:, 1, 0] ** 2)[:, None, None]
    matrix = torch.cat([inverse, -(inverse @ offset[..., None])], -1)
    mirrored = matrix.clone()
    mirrored[:, 0] = -mirrored[:, 0]
    mirrored[:, 0, 2] += stored_size - 1
    return torch.where(draws.flip[:, None, None], mirrored, matrix)


def transform_reference(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """(B, H, H, 3) uint8 -> (B, 3, S, S) float32, normalised, with plain torch operations on the images' device."""
    batch, height, width, _ = images.shape
    device = images.device
    table = draws.table.to(device)
    toned = table.gather(1, images.reshape(batch, -1).long()).view(batch, height, width, 3).permute(0, 3, 1, 2)
    matrix = sampling_matrix(draws, width).to(device, torch.float32)
    steps = torch.arange(output_size, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    at = torch.einsum("bij,hwj->bhwi", matrix, torch.stack([x, y, torch.ones_like(x)], -1))
    grid = at * (2 / torch.tensor([width - 1, height - 1], device=device)) - 1
    warped = functional.grid_sample(toned, grid, mode="bilinear", padding_mode="border", align_corners=True)
    luma = (warped * torch.tensor(LUMA, device=device).view(3, 1, 1)).sum(1, keepdim=True)
    grey = draws.grey.to(device).view(-1, 1, 1, 1)
    warped = warped + grey * (luma - warped)
    if bool((draws.sigma > 0).any()):
        rows = (draws.offset[:, :1] + torch.arange(output_size)) % NOISE_TILE
        columns = (draws.offset[:, 1:] + torch.arange(output_size)) % NOISE_TILE
        tile = _noise_on(device)[:, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
        warped = warped + draws.sigma.to(device).view(-1, 1, 1, 1) * tile.transpose(0, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)
    out = (warped - mean) / std
    top, left, bottom, right = draws.erased.to(device).T.view(4, -1, 1, 1)
    gone = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return out.masked_fill(gone[:, None], 0.0)


@lru_cache(maxsize=1)
def _parities() -> tuple[Tensor, Tensor]:
    from mtlsearch.faces.morphable_model import morphable_model

    model = morphable_model()
    return (
        torch.tensor(model.shape_parity, dtype=torch.float32),
        torch.tensor(model.expression_parity, dtype=torch.float32),
    )


def transform_labels(
    labels: Mapping[str, Tensor],
    draws: Draws,
    stored_size: int,
    output_size: int,
    flip: tuple[int, ...] = FLIP_68,
    parities: Mapping[str, Tensor] | None = None,
) -> Labels:
    """Labels in the pixels of the augmented images. Transforms those of the names below that are there.

    landmarks (B, K, 2 or 3), visible (B, K), angles (B, 3), pose (B, 12), shape and expression (B, n). flip: the
    permutation of the K landmarks; parities: signs of mirrored coefficients by name, by default our own model's. A
    landmark outside the output or under the erased rectangle becomes invisible.
    """
    unknown = set(labels) - {"landmarks", "visible", "angles", "pose", "shape", "expression", "inverse_distance"}
    if unknown:
        raise InputError(f"cannot transform labels named {', '.join(sorted(unknown))}")
    out: Labels = {}
    device = next(iter(labels.values())).device if labels else torch.device("cpu")
    flipped = draws.flip.to(device)
    affine = draws.affine.to(device)
    order = list(flip)
    if "landmarks" in labels:
        points = labels["landmarks"].double()
        points = torch.where(flipped[:, None, None], geometry.mirror_landmarks(points, stored_size, flip), points)
        points = geometry.transform_points(points, affine)
        out["landmarks"] = points.to(labels["landmarks"].dtype)
        if "visible" in labels:
            visible = torch.where(flipped[:, None], labels["visible"][:, order], labels["visible"])
            x, y = points[..., 0], points[..., 1]
            inside = (x > -0.5) & (x < output_size - 0.5) & (y > -0.5) & (y < output_size - 0.5)
            top, left, bottom, right = (draws.erased.to(device).T - 0.5)[..., None]
            out["visible"] = visible & inside & ~((x > left) & (x < right) & (y > top) & (y < bottom))
    if "angles" in labels:
        angles = labels["angles"].double()
        angles = torch.where(flipped[:, None], geometry.mirror_angles(angles), angles)
        out["angles"] = geometry.rotate_angles(angles, draws.turn.to(device)).to(labels["angles"].dtype)
    if "pose" in labels:
        pose = labels["pose"].double()
        pose = torch.where(flipped[:, None], geometry.mirror_pose(pose, stored_size), pose)
        out["pose"] = geometry.rotate_pose(pose, affine, stored_size, output_size).to(labels["pose"].dtype)
    for name, own in zip(("shape", "expression"), _parities()):
        if name in labels:
            signs = (parities[name] if parities is not None else own).to(device, labels[name].dtype)
            out[name] = torch.where(flipped[:, None], labels[name] * signs, labels[name])
    if "inverse_distance" in labels:  # of the camera: no similarity of the image changes it
        out["inverse_distance"] = labels["inverse_distance"]
    return out


def augment(
    images: Tensor,
    labels: Mapping[str, Tensor],
    augmentation: Augmentation,
    image_size: int,
    output_size: int | None = None,
    generator: torch.Generator | None = None,
    flip: tuple[int, ...] = FLIP_68,
    parities: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Labels]:
    """A batch for training, or for evaluation with `Augmentation.off()`.

    images (B, H, H, 3) uint8 RGB on any device; labels: see `transform_labels`; image_size: side of the nominal crop
    within the stored image; output_size S: default image_size; generator: a CPU generator. Returns (B, 3, S, S)
    float32, normalised, and the labels in its pixels, on the devices they came on.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2] or images.dtype != torch.uint8:
        raise InputError(f"images must be (B, H, H, 3) uint8, got {tuple(images.shape)} {images.dtype}")
    stored, size = images.shape[1], output_size or image_size
    if not 0 < image_size <= stored:
        raise InputError(f"image_size must lie in [1, {stored}], the side of the stored images, got {image_size}")
    draws = draw(augmentation, len(images), stored, image_size, size, generator)
    return transform_images(images, draws, size), transform_labels(labels, draws, stored, size, flip, parities)


def transform_images(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """The faster implementation for the images' device: the fused pass on the CPU, plain torch elsewhere."""
    if images.device.type == "cpu":
        from mtlsearch.faces.augmentation_cpu import transform_fused

        return transform_fused(images, draws, output_size)
    return transform_reference(images, draws, output_size)


def denormalize(images: Tensor) -> Tensor:
    """(B, 3, S, S) normalised -> (B, S, S, 3) uint8 RGB, to look at what a network sees."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


assert math.isclose(sum(LUMA), 1.0)
