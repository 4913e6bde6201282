"""Batched augmentation: stored crops (B, H, H, 3) uint8 to network inputs (B, 3, S, S) float32, targets with them.

What each transform means, in this order:

1. flip: the stored image is mirrored left to right (landmarks permuted, coefficients times their parity);
2. similarity: rotation about the image's centre, clockwise as seen, scale, shift; sampled bilinearly, the stored
   image's edge continues outside it;
3. tone, on values v in [0, 1] *before* interpolation: v^gamma, then (v − ½)·contrast + ½ + brightness, then times the
   channel's gain (colour), clipped;
4. grey: every channel becomes the luma 0.299 R + 0.587 G + 0.114 B;
5. blur: a Gaussian of σ output pixels, cut off at 3σ; the output's edge continues outside it;
6. noise: σ times a fixed tile of standard normals, at a random offset;
7. normalisation with ImageNet's mean and standard deviation;
8. erasing: a rectangle is set to 0 (the mean colour).

Two implementations, tested against each other: `transform_reference` in plain torch for any device, and a numba pass
over CPU bytes, `augmentation_cpu`.
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
from mtlsearch.faces.geometry import FLIPS
from mtlsearch.faces.morphable.coefficient_mirror import CoefficientMirror, mirror_of
from mtlsearch.faces.morphable.morphable_model import morphable_model
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
    grey, blur, erase: probabilities; brightness, contrast: uniform in ± (added; around 1); gamma, colour: log of the
    exponent and of each channel's gain, uniform in ±; blur_size: largest σ, share of S, uniform from 0; noise: largest
    σ, uniform from 0; erase_size: largest side of the erased rectangle, share of S.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    scale: Share = 0.10
    shift: Share = 0.04
    flip: Share = 0.5
    brightness: Share = 0.10
    contrast: Share = 0.20
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.25
    colour: Share = 0.10
    grey: Share = 0.10
    blur: Share = 0.10
    blur_size: Annotated[float, Field(ge=0, le=0.05)] = 0.01
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
    of the output; table (B, 3, 256) float32: tone of a channel's byte; grey (B,) float32 0 or 1; blur (B,) float32: σ
    in output pixels; sigma (B,) float32; offset (B, 2) int64 rows, columns; erased (B, 4) int64: top, left, bottom,
    right, exclusive.
    """

    flip: Tensor
    turn: Tensor
    affine: Tensor
    table: Tensor
    grey: Tensor
    blur: Tensor
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
    rows: slice | None = None,
) -> Draws:
    """Random numbers of a batch, or of those of its rows. generator: a CPU generator, so that CPU and GPU runs draw
    alike."""
    a = augmentation
    u = torch.rand(batch, 21, generator=generator, dtype=torch.float64)
    if rows is not None:
        u = u[rows]
    signed = 2 * u - 1
    turn = a.rotation * signed[:, 0]
    factor = torch.exp(a.scale * signed[:, 1]) * (output_size / image_size)
    shift = a.shift * output_size * signed[:, 2:4]
    cosine, sine = factor * torch.cos(torch.deg2rad(turn)), factor * torch.sin(torch.deg2rad(turn))
    linear = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    affine = _about_the_centre(linear, stored_size, output_size)
    affine[..., 2] += shift

    ramp = torch.arange(256, dtype=torch.float64) / 255
    tone = ramp ** torch.exp(a.gamma * signed[:, 4:5])
    tone = (tone - 0.5) * (1 + a.contrast * signed[:, 5:6]) + 0.5 + a.brightness * signed[:, 6:7]
    table = (tone[:, None] * torch.exp(a.colour * signed[:, 16:19, None])).clamp(0, 1)

    sides = a.erase_size * output_size * (0.3 + 0.7 * u[:, 7:9]) * (u[:, 9:10] < a.erase)
    corner = u[:, 10:12] * (output_size - sides)
    erased = torch.cat([corner, corner + sides], -1).round().long()
    return Draws(
        flip=u[:, 12] < a.flip,
        turn=turn,
        affine=affine,
        table=table.float(),
        grey=(u[:, 13] < a.grey).float(),
        blur=(a.blur_size * output_size * u[:, 19] * (u[:, 20] < a.blur)).float(),
        sigma=(a.noise * u[:, 14]).float(),
        offset=torch.stack([u[:, 15] * NOISE_TILE, (u[:, 15] * NOISE_TILE * 97) % NOISE_TILE], -1).long(),
        erased=erased,
    )


def _about_the_centre(linear: Tensor, stored_size: int, output_size: int) -> Tensor:
    """(…, 2, 2) -> (…, 2, 3): the map that takes the stored image's centre to the output's."""
    offset = (output_size - 1) / 2 - linear.sum(-1) * ((stored_size - 1) / 2)
    return torch.cat([linear, offset[..., None]], -1)


def centre_crop(stored_size: int, image_size: int, output_size: int) -> Tensor:
    """(2, 3) float64: pixels of the stored image to pixels of the output, of evaluation's crop."""
    return _about_the_centre(torch.eye(2, dtype=torch.float64) * (output_size / image_size), stored_size, output_size)


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


def blur_weights(sigma: Tensor) -> Tensor:
    """(B,) σ in pixels -> (B, 2R + 1) float32: a Gaussian's weights, of sum 1 and 0 beyond 3σ; R is the largest 3σ."""
    spread = sigma.double()[:, None].clamp(min=1e-3)
    radius = math.ceil(3 * float(spread.max())) if len(sigma) else 1
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / spread) ** 2) * (steps.abs() <= torch.ceil(3 * spread))
    return (weights / weights.sum(1, keepdim=True)).float()


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, 3, S, S) under Gaussians of σ (B,) pixels, on the CPU; rows first, then columns."""
    weights = blur_weights(sigma).to(images.device)
    radius, size = weights.shape[1] // 2, images.shape[-1]
    for dim, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded = functional.pad(images, padding, mode="replicate")
        taps = (weights[:, k, None, None, None] * padded.narrow(dim, k, size) for k in range(2 * radius + 1))
        images = sum(taps, torch.zeros_like(images))
    return images


def transform_reference(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """(B, H, H, 3) uint8 -> (B, 3, S, S) float32, normalised, with plain torch operations on the images' device."""
    batch, height, width, _ = images.shape
    device = images.device
    planes = images.permute(0, 3, 1, 2).flatten(2).long()
    toned = draws.table.to(device).gather(2, planes).view(batch, 3, height, width)
    matrix = sampling_matrix(draws, width).to(device, torch.float32)
    steps = torch.arange(output_size, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    at = torch.einsum("bij,hwj->bhwi", matrix, torch.stack([x, y, torch.ones_like(x)], -1))
    grid = at * (2 / torch.tensor([width - 1, height - 1], device=device)) - 1
    warped = functional.grid_sample(toned, grid, mode="bilinear", padding_mode="border", align_corners=True)
    luma = (warped * torch.tensor(LUMA, device=device).view(3, 1, 1)).sum(1, keepdim=True)
    grey = draws.grey.to(device).view(-1, 1, 1, 1)
    warped = warped + grey * (luma - warped)
    blurred = draws.blur.nonzero()[:, 0]
    if len(blurred):
        warped[blurred.to(device)] = _blur(warped[blurred.to(device)], draws.blur[blurred])
    if bool((draws.sigma > 0).any()):
        rows = (draws.offset[:, :1] + torch.arange(output_size)) % NOISE_TILE
        columns = (draws.offset[:, 1:] + torch.arange(output_size)) % NOISE_TILE
        tile = _noise_on(device)[:, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
        warped = warped + draws.sigma.to(device).view(-1, 1, 1, 1) * tile.transpose(0, 1)
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)
    out = (warped - mean) / std
    top, left, bottom, right = draws.erased.to(device).T[..., None, None]
    gone = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return out.masked_fill(gone[:, None], 0.0)


@lru_cache(maxsize=1)
def _own_mirror() -> CoefficientMirror:
    return mirror_of(morphable_model().landmark_basis())


def transform_labels(
    labels: Mapping[str, Tensor],
    draws: Draws,
    stored_size: int,
    output_size: int,
    flip: tuple[int, ...] | None = None,
    mirror: CoefficientMirror | None = None,
    dense_flip: tuple[int, ...] | None = None,
) -> Labels:
    """Labels in the pixels of the augmented images. Transforms those of the names below that are there.

    landmarks (B, K, 2 or 3), visible (B, K), angles (B, 3), pose (B, 12), shape (B, 40) and expression (B, 10), which
    come together, dense (B, D, 3); inverse_distance (B,) of the camera stays as it is. flip: the permutation of the K
    landmarks, by default that of the 68 or the 21; dense_flip: that of the dense points; mirror: what mirroring does to
    the coefficients, by default our own model's exact signs. A landmark outside the output or under the erased
    rectangle becomes invisible.
    """
    known = {"landmarks", "visible", "angles", "pose", "inverse_distance", "shape", "expression", "dense"}
    unknown = set(labels) - known
    if unknown:
        raise InputError(f"cannot transform labels named {', '.join(sorted(unknown))}")
    out: Labels = {}
    device = next(iter(labels.values())).device if labels else torch.device("cpu")
    flipped = draws.flip.to(device)
    affine = draws.affine.to(device)

    def moved(points: Tensor, order: tuple[int, ...]) -> Tensor:
        points = points.double()
        mirrored = geometry.mirror_landmarks(points, stored_size, order)
        return geometry.transform_points(torch.where(flipped[:, None, None], mirrored, points), affine)

    if "dense" in labels:
        if dense_flip is None or len(dense_flip) != labels["dense"].shape[1]:
            raise InputError(f"dense points need dense_flip, the permutation of all {labels['dense'].shape[1]}")
        out["dense"] = moved(labels["dense"], dense_flip).to(labels["dense"].dtype)
    if "landmarks" in labels:
        flip = flip or FLIPS[labels["landmarks"].shape[1]]
        order = list(flip)
        points = moved(labels["landmarks"], flip)
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
    if "inverse_distance" in labels:
        out["inverse_distance"] = labels["inverse_distance"]
    if "shape" in labels or "expression" in labels:
        mirror = mirror or _own_mirror()
        coefficients = torch.cat([labels["shape"], labels["expression"]], 1).double()
        matrix, offset = (torch.from_numpy(array).to(device) for array in (mirror.matrix, mirror.offset))
        mirrored = coefficients @ matrix.T + offset
        coefficients = torch.where(flipped[:, None], mirrored, coefficients).to(labels["shape"].dtype)
        out["shape"], out["expression"] = coefficients.split([labels[n].shape[1] for n in ("shape", "expression")], 1)
    return out


def augment(
    images: Tensor,
    labels: Mapping[str, Tensor],
    augmentation: Augmentation,
    image_size: int,
    output_size: int | None = None,
    generator: torch.Generator | None = None,
    flip: tuple[int, ...] | None = None,
    mirror: CoefficientMirror | None = None,
    dense_flip: tuple[int, ...] | None = None,
    part_of: tuple[int, slice] | None = None,
) -> tuple[Tensor, Labels]:
    """A batch for training, or for evaluation with `Augmentation.off()`.

    images (B, H, H, 3) uint8 RGB on any device; labels: see `transform_labels`; image_size: side of the nominal crop
    within the stored image; output_size S: default image_size; generator: a CPU generator; part_of: (B', rows), where
    the images are these rows of a batch of B' and drawn as they would be in it. Returns (B, 3, S, S) float32,
    normalised, and the labels in its pixels, on the devices they came on.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2] or images.dtype != torch.uint8:
        raise InputError(f"images must be (B, H, H, 3) uint8, got {tuple(images.shape)} {images.dtype}")
    stored, size = images.shape[1], output_size or image_size
    if not 0 < image_size <= stored:
        raise InputError(f"image_size must lie in [1, {stored}], the side of the stored images, got {image_size}")
    whole, rows = part_of or (len(images), None)
    draws = draw(augmentation, whole, stored, image_size, size, generator, rows)
    return transform_images(images, draws, size), transform_labels(
        labels, draws, stored, size, flip, mirror, dense_flip
    )


def transform_images(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """The faster implementation for the images' device: numba on the CPU, in torch's number of threads, else torch."""
    if images.device.type == "cpu":
        from mtlsearch.faces.augmentation_cpu import transform_fused

        return transform_fused(images, draws, output_size)
    return transform_reference(images, draws, output_size)


def scaled(images: Tensor, image_size: int | None) -> Tensor:
    """Network inputs (B, 3, S, S) at another side, each pixel the mean of those under it; None: as they are."""
    if image_size is None or image_size == images.shape[-1]:
        return images
    side = (image_size, image_size)
    return functional.interpolate(images, side, mode="bilinear", antialias=True, align_corners=False)


def denormalize(images: Tensor) -> Tensor:
    """(B, 3, S, S) normalised -> (B, S, S, 3) uint8 RGB, to look at what a network sees."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
