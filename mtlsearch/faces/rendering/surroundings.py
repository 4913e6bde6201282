"""What is behind a face and before it, and what the camera makes of it: blur, tone, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.rendering.appearance import Floats32, linear, muted_colour

TONES = 4096
NOISE_TILE = 512
_RAMP = np.linspace(0, 1, TONES)


@dataclass
class Surroundings:
    """Background (H, H, 3) in linear light; behind, before: shapes for `strokes.paint_shapes`; fingers (L, P, 3) pixels
    with radius (L,) in pixels and colours (L, 3); the camera: blur (σ, pixels), noise (σ, grey levels), offset into the
    noise tile, tone tables (3, 4096) from linear light to grey levels, grey (0 to 1), JPEG quality or 0."""

    background: Floats32
    behind: Floats
    before: Floats
    fingers: Floats
    finger_radius: Floats32
    finger_colours: Floats32
    blur: float
    noise: float
    offset: npt.NDArray[np.int64]
    tones: Floats32
    grey: float
    jpeg: int


@lru_cache(maxsize=1)
def noise_tile() -> Floats32:
    """(512, 512, 3) normal noise."""
    return np.random.default_rng(512).standard_normal((NOISE_TILE, NOISE_TILE, 3)).astype(np.float32)


def _resized(image: Floats32, size: int) -> Floats32:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _draw_background(rng: np.random.Generator, size: int, u: list[float]) -> Floats32:
    colour = [muted_colour(hue, 0.85 * saturation, value) for hue, saturation, value in rng.random((2, 3)).tolist()]
    mix = rng.random((2, 2, 1)) * (1.0 if u[0] < 0.6 else 0.15)
    background = (colour[0] * (1 - mix) + colour[1] * mix).astype(np.float32)
    if u[4] < 0.10:  # night, or a dark room
        background *= np.float32(0.15)
    # Octaves of smooth noise, mostly of brightness, built up at 48×48 and enlarged once.
    rough = 0.22 * u[1] ** 2.5
    for cells, share, tint in ((4, 0.8, 0.15), (9, 0.7, 0.08), (16, 0.5 * u[2], 0.0), (40, 0.5 * u[3] ** 3, 0.0)):
        background = _resized(background, cells)
        background += np.float32(rough * share) * rng.standard_normal((cells, cells, 1), dtype=np.float32)
        if tint:
            background += np.float32(rough * share * tint) * rng.standard_normal((cells, cells, 3), dtype=np.float32)
    background = np.clip(background, 0, 1) ** np.float32(2.2)
    return np.clip(_resized(background, size), 0, 1)


def _shapes(rng: np.random.Generator, count: int, size: int, largest: float, soft: float, upright: bool) -> Floats:
    r = rng.random((count, 12))
    out = np.empty((count, 12))
    for row, q in zip(out, r):
        turn = 0.06 * (q[5] - 0.5) if upright else np.pi * q[5]
        axes = (0.03 + largest * q[3:5] ** 1.5) * size
        row[:] = (
            q[0] < (0.15 if upright else 0.6), q[1] * size, q[2] * size, *axes, np.cos(turn), np.sin(turn),
            0.8 + soft * size * q[9], *linear(muted_colour(q[6], q[7], q[8])), 0.5 * (q[10] - 0.5),
        )  # fmt: skip
    return out


def _hand(rng: np.random.Generator, size: int, scale: float, skin: Floats32) -> tuple[Floats, Floats, Floats]:
    """A forearm, a palm and five fingers that come in from a side or from below: points (7, 8, 3), radii, colours."""
    q = rng.random(12)
    turn = np.pi * (0.15 + 0.7 * q[0]) if q[1] < 0.75 else np.pi * (1.0 if q[0] < 0.5 else 0.0) + 0.8 * (q[0] - 0.5)
    along = np.array([np.cos(turn), -np.sin(turn)])  # from the wrist to the fingertips, y down
    across = np.array([-along[1], along[0]]) * (1 if q[2] < 0.5 else -1)
    palm = size * np.array([0.5, 0.5]) + size * (0.28 + 0.12 * q[3]) * -along + size * 0.22 * (q[4] - 0.5) * across
    length = np.linspace(0, 1, 8)[:, None]

    def line(start: Floats, way: Floats, reach: float, bend: float) -> Floats:
        path = start + way * reach * scale * length + across * bend * scale * length**2
        return np.concatenate([path, np.zeros((8, 1))], -1)

    strokes = [line(palm - along * 1.6 * scale, along, 1.3, 0), line(palm - along * 0.30 * scale, along, 0.45, 0)]
    radii = [0.22, 0.27]
    closed = 0.55 + 0.45 * q[5]
    for i, reach in enumerate((0.62, 0.74, 0.70, 0.55)):
        aside = (i - 1.5) * (0.165 + 0.03 * q[6])
        spread = along + across * (i - 1.5) * 0.10 * q[7]
        strokes.append(
            line(palm + (along * 0.20 + across * aside) * scale, spread, reach * closed, 0.05 * (q[8] - 0.5))
        )
        radii.append(0.078 - 0.004 * abs(i - 1))
    strokes.append(line(palm + across * -0.33 * scale, along * 0.75 - across * 0.55, 0.55, 0.15))
    radii.append(0.088)
    shades = np.array([0.92, 1.0, 0.94, 1.0, 0.97, 1.03, 0.98])[:, None] * (0.70 + 0.25 * q[9])
    return np.stack(strokes), np.array(radii) * scale, skin * shades


def draw_surroundings(rng: np.random.Generator, size: int, scale: float, skin: Floats32) -> Surroundings:
    """Surroundings of a stored image of size×size pixels; scale: pixels per model unit."""
    u = rng.random(40).tolist()
    background = _draw_background(rng, size, u)
    count = int(9 * u[5] ** 1.5) if u[6] < 0.6 else 0
    behind = _shapes(rng, count, size, 0.45, 0.02 + 0.25 * u[7] ** 2, u[8] < 0.7)
    before = np.zeros((0, 12))
    fingers, finger_radius, finger_colours = np.zeros((0, 8, 3)), np.zeros(0), np.zeros((0, 3))
    if u[9] < 0.08:  # an object
        before = _shapes(rng, 1, size, 0.17, 0.01, u[10] < 0.5)
    elif u[9] < 0.16:
        fingers, finger_radius, finger_colours = _hand(rng, size, scale, skin)
    blur = (0.2 + 1.0 * u[11] ** 2) * size / 150 if u[12] < 0.5 else 0.0
    noise = 5.0 * u[13] ** 3
    gamma, contrast, lift = np.exp(0.22 * (2 * u[14] - 1)), 0.90 + 0.3 * u[15], 0.04 * u[20] ** 2
    balance = np.array([1 + 0.05 * (u[21] - 0.5), 1.0, 1 + 0.05 * (u[22] - 0.5)])[:, None]
    tone = np.clip((_RAMP ** (gamma / 2.2) - 0.5) * contrast + 0.5, 0, 1) * balance
    tones = 255 * np.clip(lift + (1 - lift) * tone, 0, 1)
    offset = np.array([int(u[16] * NOISE_TILE), int(u[17] * NOISE_TILE)])
    jpeg = 40 + int(57 * u[19]) if u[18] < 0.5 else 0
    grey = 1.0 if u[23] < 0.05 else 0.25 * u[24] ** 2
    return Surroundings(
        background, behind, before, fingers, finger_radius.astype(np.float32), finger_colours.astype(np.float32), blur,
        noise, offset, tones.astype(np.float32), grey, jpeg,
    )  # fmt: skip
