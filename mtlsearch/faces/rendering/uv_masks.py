"""Masks over the head's surface: lips, brows, lids, beard, hair, clothes, make-up, wear.

They are drawn once per process into a bank of small byte planes in the mesh's UV space. A sample picks planes, colours
and strengths, and the renderer mixes them per visible pixel: a look costs a few random numbers, not a texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.morphable import head_surface as surface
from mtlsearch.faces.morphable.head_mesh import head_mesh
from mtlsearch.faces.morphable.head_surface import bump, step
from mtlsearch.faces.rendering.hair import STYLES, hair_depth

TEXELS = 3  # per cell of the mesh's grid
BLOCK = 8  # texels a side of the blocks that say where a plane is empty; as in `renderer.shade`


@dataclass(frozen=True)
class MaskBank:
    """The planes by resolution, and where the variants of each kind lie.

    levels: (P, h, w) uint8 at full, half and quarter resolution; blocks: for each level (P, h/8, w/8), whether a
    block's bilinear samples can be above 0; kinds: name -> (first plane, variants).
    """

    levels: tuple[Bytes, ...]
    blocks: tuple[npt.NDArray[np.bool_], ...]
    kinds: dict[str, tuple[int, int]]

    def layers_by_block(self, level: int, planes: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
        """For each block of texels, bit k says whether planes[k] is above 0 somewhere in it; at most 32 planes."""
        bits = np.left_shift(np.uint32(1), np.arange(len(planes), dtype=np.uint32))
        return np.asarray(np.tensordot(bits, self.blocks[level][planes], 1).astype(np.uint32))


def _cloud(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[tuple[int, int], ...]) -> Floats:
    """Smooth noise of unit variance: octaves of the given numbers of cells down and across."""
    total: Floats = np.zeros(shape)
    for down, across in cells:
        grid = rng.standard_normal((down, across)).astype(np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total / total.std()


@dataclass(frozen=True)
class _Texels:
    """Where the texels lie on the mean head."""

    x: Floats
    y: Floats
    angle: Floats
    level: Floats
    ax: Floats
    front: Floats
    shape: tuple[int, int]


def _texels() -> _Texels:
    mesh = head_mesh()
    rows, columns = mesh.grid
    v, u = np.meshgrid(
        np.arange((rows - 1) * TEXELS + 1, dtype=np.float32) / TEXELS,
        np.arange((columns - 1) * TEXELS + 1, dtype=np.float32) / TEXELS,
        indexing="ij",
    )
    fields = np.concatenate([mesh.vertices[:, :2], mesh.angle[:, None], mesh.level[:, None]], -1).astype(np.float32)
    maps = [cv2.remap(f.reshape(rows, columns), u, v, cv2.INTER_LINEAR).astype(np.float64) for f in fields.T.copy()]
    x, y, angle, level = maps
    return _Texels(x, y, angle, level, np.abs(x), step(np.cos(angle) - 0.15, 0.05), x.shape)


def _skin(t: _Texels, rng: np.random.Generator) -> dict[str, list[Floats]]:
    ax, y, front = t.ax, t.y, t.front
    calm = 0.35 + 0.65 * front * step(y + 1.3, 0.1)
    blotches = [
        0.8 * _cloud(rng, t.shape, ((9, 9), (22, 24))) + 0.6 * _cloud(rng, t.shape, ((110, 120),)) for _ in range(6)
    ]
    lower, upper = surface.lid_edges(t.x)
    near_eye = step(surface.EYE_WIDTH * 1.08 - np.abs(ax - surface.EYE_X), 0.012) * front
    shadow = (
        0.22 * bump(ax, y, 0.185, 0.06, 0.05, 0.07)  # inner corner of the socket
        + 0.30 * np.exp(-(((y - upper - 0.052) / 0.012) ** 2)) * near_eye  # crease of the upper lid
        + 0.16 * np.exp(-(((y - upper - 0.085) / 0.045) ** 2)) * near_eye
        + 0.20 * np.exp(-(((y - lower + 0.045) / 0.016) ** 2)) * near_eye  # bag under the eye
        + 0.15 * bump(ax, y, 0.235, -0.085, 0.07, 0.03)
        + 0.95 * bump(ax, y, 0.066, -0.455, 0.032, 0.014)  # nostril
        + 0.30 * bump(ax, y, 0.0, -0.475, 0.12, 0.018)
        + 0.32 * bump(ax, y, 0.192, -0.415, 0.016, 0.055)  # behind the wings of the nose
        + 0.22 * bump(ax - 0.25 * (-0.5 - y), y, 0.255, -0.54, 0.022, 0.11)  # nasolabial fold
        + 0.32 * bump(ax, y, surface.MOUTH_WIDTH + 0.008, surface.MOUTH_Y, 0.018, 0.018)
        + 0.25 * bump(ax, y, 0.0, -0.845, 0.14, 0.025)
        + 0.10 * bump(ax, y, 0.0, -0.55, 0.018, 0.05)
    ) * front
    _, seam, _ = surface.lip_edges(t.x)
    lips = step(surface.MOUTH_WIDTH - ax, 0.008) * front
    shadow += 0.50 * np.exp(-(((y - seam) / 0.016) ** 2)) * lips
    opened = (y - lower) / (upper - lower + 1e-6)
    eye = step(surface.EYE_WIDTH - np.abs(ax - surface.EYE_X), 0.006) * front
    shadow += eye * (0.60 * step(opened - 0.74, 0.10) + 0.12 * step(0.14 - opened, 0.06)) * (opened > 0) * (opened < 1)
    _, rim, bowl = surface.ear_parts(t.angle, y)
    shadow += 0.45 * bowl * (1 - rim)
    blush = bump(ax, y, 0.40, -0.25, 0.17, 0.15) + 0.8 * bump(ax, y, 0, -0.37, 0.10, 0.10)
    tired = np.exp(-(((y - lower + 0.04) / 0.04) ** 2)) * near_eye
    wrinkles = np.zeros(t.shape)
    for height in (0.40, 0.48, 0.56):
        wave = 0.012 * np.sin(9 * t.x + 20 * height)
        wrinkles += np.exp(-(((y - height - wave) / 0.007) ** 2)) * step(0.42 - ax, 0.06)
    wrinkles += 0.8 * bump(ax - 0.25 * (-0.5 - y), y, 0.262, -0.55, 0.014, 0.14)
    for fan in (-0.45, 0.0, 0.45):  # crow's feet
        line = 0.01 + fan * (ax - 0.44)
        wrinkles += 0.6 * np.exp(-(((y - line) / 0.006) ** 2)) * step(ax - 0.475, 0.008) * step(0.57 - ax, 0.02)
    freckles = np.clip(_cloud(rng, t.shape, ((150, 150),)) - 1.3, 0, 1.2) * np.clip(
        blush + bump(ax, y, 0, -0.2, 0.2, 0.2), 0, 1
    )
    return {
        "detail": [np.clip(0.5 + 0.15 * calm * b, 0, 1) for b in blotches],
        "occlusion": [np.clip(shadow, 0, 0.95)],
        "blush": [np.clip((blush + 0.3 * bump(ax, y, 0, -1.02, 0.15, 0.1)) * front, 0, 1)],
        "tired": [np.clip(tired, 0, 1)],
        "wrinkles": [np.clip(wrinkles * front, 0, 1)],
        "freckles": [np.clip(freckles * front, 0, 1)],
    }


def _mouth(t: _Texels) -> dict[str, list[Floats]]:
    lips = []
    lower, seam, upper = surface.lip_edges(t.x)
    for wide, high in ((1.0, 1.0), (1.0, 0.85), (0.97, 1.12), (1.0, 0.72)):
        top, bottom = seam + (upper - seam) * high, seam + (lower - seam) * high
        inside = np.minimum(top - t.y, t.y - bottom)
        lips.append(step(inside, 0.007) * step(surface.MOUTH_WIDTH * wide - t.ax, 0.010) * t.front)
    gap = np.minimum(t.level - surface.LOWER_LIP, surface.UPPER_LIP - t.level)
    corner = step(surface.MOUTH_WIDTH * 0.95 - t.ax, 0.008) * t.front
    mouth = step(gap - 0.001, 0.0007) * corner
    between = np.abs((t.ax / 0.043) % 1 - 0.5)
    gaps = 1 - 0.35 * np.exp(-(((between - 0.5) / 0.10) ** 2))
    teeth = []
    for share in (0.55, 0.38, 0.22):  # of the open mouth, from the upper lip: the wider it is open, the less
        edge = surface.UPPER_LIP - share * (surface.UPPER_LIP - surface.LOWER_LIP)
        teeth.append(step(t.level - edge, 0.0009) * gaps * mouth * step(0.19 - t.ax, 0.02))
    return {"lips": lips, "mouth": [mouth], "teeth": teeth}


def _eyes(t: _Texels, rng: np.random.Generator) -> dict[str, list[Floats]]:
    ax, y, front = t.ax, t.y, t.front
    lower, upper = surface.lid_edges(t.x)
    across = surface.EYE_WIDTH - np.abs(ax - surface.EYE_X)
    near = step(across + 0.012, 0.006) * front
    white = step(np.minimum(t.level - surface.LOWER_LID, surface.UPPER_LID - t.level) + 0.002, 0.0025)
    lashes, liner = [], []
    for thick in (0.008, 0.011, 0.015):
        arc = np.exp(-(((y - upper - 0.003) / thick) ** 2)) * near
        wing = step(ax - surface.EYE_X - 0.02, 0.04)
        under = 0.35 * np.exp(-(((y - lower + 0.004) / 0.007) ** 2)) * near * (0.4 + 0.6 * wing)
        lashes.append(np.clip(arc * (0.75 + 0.25 * wing) + under, 0, 1))
        liner.append(np.clip(step(upper + 0.055 - y, 0.012) * step(y - upper + 0.004, 0.005) * near, 0, 1))
    caruncle = bump(ax, y, surface.EYE_X - surface.EYE_WIDTH + 0.016, 0.0, 0.014, 0.016) * front
    brows = []
    strokes = _cloud(rng, t.shape, ((40, 200), (90, 260)))
    for arch, thick, tilt, gap in (
        (0.0, 0.032, 0.0, 0.0), (0.02, 0.024, 0.02, 0.0), (-0.015, 0.042, -0.02, -0.015), (0.01, 0.018, 0.04, 0.01),
        (0.0, 0.050, 0.0, -0.02), (-0.02, 0.030, -0.05, 0.0),
    ):  # fmt: skip
        u = (ax - 0.165) / 0.385
        at = np.clip(u, 0, 1)
        middle = np.interp(at, [0, 0.27, 0.55, 0.80, 1.0], [0.200, 0.238, 0.260, 0.234, 0.170])
        middle = middle + arch * np.sin(np.pi * at) + tilt * (at - 0.4)
        width = thick * np.interp(u, [-0.05, 0.10, 0.5, 0.8, 1.03], [0.75, 1.1, 1.0, 0.6, 0.25])
        along = step(np.minimum(ax - 0.145 - gap, 0.565 - ax), 0.012)
        soft = step(1 - np.abs(y - middle) / width + 0.22 * strokes, 0.22)
        brows.append(np.clip(soft * along * front, 0, 1))
    return {
        "white": [white * step(across, 0.006) * front],
        "lashes": lashes,
        "eyeshadow": liner,
        "caruncle": [caruncle],
        "brows": brows,
    }


def _beard(t: _Texels, rng: np.random.Generator) -> dict[str, list[Floats]]:
    ax, y = t.ax, t.y
    neck = step(y + 1.25, 0.06)
    chin = step(-0.84 - 0.06 * np.cos(ax * 6) - y, 0.03) * neck
    moustache = bump(ax, y, 0.10, -0.565, 0.16, 0.038) * step(-0.50 - y, 0.012) * 1.4
    line = np.interp(ax, [0.2, 0.3, 0.42, 0.55, 0.66], [-0.72, -0.62, -0.46, -0.28, -0.08])
    cheeks = step(line - y, 0.03) * step(ax - 0.24, 0.03) * neck * step(np.degrees(np.abs(t.angle)) * -1 + 86, 2)
    full = np.clip(np.maximum.reduce([chin, np.clip(moustache, 0, 1), cheeks]), 0, 1)
    goatee = np.clip(np.maximum(chin * bump(ax, y, 0, -1.0, 0.22, 0.4), moustache), 0, 1)
    rough = 0.74 + 0.26 * np.clip(_cloud(rng, t.shape, ((70, 150), (120, 200))), -1.5, 1.5) / 1.5
    lower, _, upper = surface.lip_edges(t.x)
    lips = step(np.minimum(upper + 0.006 - y, y - lower + 0.004), 0.008) * step(surface.MOUTH_WIDTH + 0.01 - ax, 0.01)
    shaped = [
        np.clip(m * rough * (1 - lips) * step(np.cos(t.angle) + 0.05, 0.02), 0, 1) for m in (full, goatee, moustache)
    ]
    even = np.clip(full * (1 - lips) * (0.9 + 0.1 * rough), 0, 1)
    return {"beard": shaped, "stubble": [cv2.GaussianBlur(even, (0, 0), 2.5)]}


def _hair_and_clothes(t: _Texels, rng: np.random.Generator) -> dict[str, list[Floats]]:
    caps, strands = [], []
    for style in STYLES:
        ragged = 0.022 * np.clip(_cloud(rng, t.shape, ((14, 60), (30, 160))), -2, 2)
        soft = 0.030 if style.thickness < 0.05 else 0.018
        caps.append(step(hair_depth(style, t.angle, t.y) + ragged + 0.004, soft))
        flow = _cloud(rng, t.shape, ((7, 150), (10, 260)))
        strands.append(caps[-1] * np.clip(0.30 + 0.38 * flow, 0, 1))
    shaved = step(hair_depth(STYLES[0], t.angle, t.y) - 0.02, 0.03)
    collars = []
    for high, dip in ((-1.80, 0.10), (-1.84, 0.34), (-1.74, 0.16), (-1.60, 0.02)):
        collars.append(step(high - dip * np.clip(np.cos(t.angle), 0, 1) ** 3 - t.y, 0.03))
    folds = np.clip(0.5 + 0.22 * _cloud(rng, t.shape, ((10, 30), (24, 40))), 0, 1)
    return {"hair": caps, "strands": strands, "shaved": [shaved], "cloth": collars, "folds": [folds * collars[0]]}


def _blocks(level: Bytes) -> npt.NDArray[np.bool_]:
    height, width = (-(-n // BLOCK) for n in level.shape[1:])
    out = np.zeros((len(level), height, width), np.bool_)
    for row in range(height):
        for column in range(width):
            # One texel more: a bilinear sample reads its right and lower neighbours.
            part = level[:, row * BLOCK : (row + 1) * BLOCK + 1, column * BLOCK : (column + 1) * BLOCK + 1]
            out[:, row, column] = part.any((1, 2))
    return out


@lru_cache(maxsize=1)
def mask_bank() -> MaskBank:
    """The bank, drawn once per process and the same everywhere."""
    rng, texels = np.random.default_rng(2023), _texels()
    planes = (
        _skin(texels, rng) | _mouth(texels) | _eyes(texels, rng) | _beard(texels, rng) | _hair_and_clothes(texels, rng)
    )
    kinds: dict[str, tuple[int, int]] = {}
    stack: list[Floats] = []
    for name, variants in planes.items():
        kinds[name] = (len(stack), len(variants))
        stack.extend(variants)
    full = (np.clip(np.stack(stack), 0, 1) * 255 + 0.5).astype(np.uint8)
    levels, (height, width) = [full], texels.shape
    for factor in (2, 4):
        size = (width // factor + 1, height // factor + 1)
        levels.append(np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in full]))
    return MaskBank(tuple(levels), tuple(_blocks(level) for level in levels), kinds)
