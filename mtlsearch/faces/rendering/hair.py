"""Hair: styles by their hairline, how far each stands off the head, and locks that break up its outline.

A style is a cap, which is the mesh pushed outwards, and some hundred locks over it: polylines that run from a root
down the head, with tips that reach past the hairline. Locks hang on vertices, so they follow every shape of head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.morphable.head_mesh import HeadMesh, head_mesh
from mtlsearch.faces.morphable.head_surface import ear_offset, step

Floats32 = npt.NDArray[np.float32]
LOCK_POINTS = 8
_PER_DEGREE = 0.0125  # length on the head


@dataclass(frozen=True)
class HairStyle:
    """One style. Lengths in decimetres.

    line: (angle from the front in degrees, height) of the hairline; thickness of the cap; hanging: extra thickness
    below the ears; length: of the locks, from and to; sweep: columns that a lock drifts to the side per row, away from
    the middle; rising: share of the locks that are combed up, away from the hairline; fringe: how far locks may
    reach past it; lift: how far tips stand off; curl: how far locks wind about their way; width: of a lock; locks:
    their number.
    """

    line: tuple[tuple[float, float], ...]
    thickness: float
    hanging: float = 0.0
    length: tuple[float, float] = (0.12, 0.3)
    sweep: float = 0.0
    rising: float = 0.0
    fringe: float = 0.06
    lift: float = 0.03
    curl: float = 0.006
    width: float = 0.022
    locks: int = 260


_NECK = ((104, 0.05), (112, -0.30), (126, -0.50), (180, -0.60))
_MEN = ((0, 0.66), (18, 0.665), (30, 0.60), (40, 0.50), (52, 0.30), (62, 0.22), (72, 0.10), (79, -0.08), (84, 0.0),
        (89, 0.22), (99, 0.24), *_NECK)  # fmt: skip
_RECEDING = ((0, 0.74), (12, 0.76), (26, 0.86), (38, 0.68), (50, 0.38), (62, 0.26), (72, 0.14), (79, -0.02),
             (84, 0.02), (89, 0.22), (99, 0.24), *_NECK)  # fmt: skip
_BALD = ((0, 1.3), (60, 1.2), (72, 0.42), (79, 0.12), (84, 0.10), (89, 0.23), (99, 0.24), *_NECK)
_FRINGE = ((0, 0.38), (22, 0.37), (38, 0.33), (50, 0.22), (60, 0.08), (70, -0.15), (82, -0.45), (180, -0.70))
_BOB = ((0, 0.66), (15, 0.62), (30, 0.48), (40, 0.28), (48, 0.05), (55, -0.25), (62, -0.62), (70, -0.9), (180, -0.98))
_LONG = ((0, 0.70), (12, 0.67), (28, 0.54), (40, 0.34), (49, 0.10), (57, -0.20), (65, -0.75), (73, -1.7), (180, -2.3))
_BACK = ((0, 0.66), (20, 0.64), (34, 0.55), (46, 0.38), (56, 0.24), (68, 0.12), (78, -0.02), (84, 0.06), (90, 0.24),
         (99, 0.24), *_NECK)  # fmt: skip

STYLES = (
    HairStyle(_MEN, 0.050, length=(0.10, 0.22), lift=0.02, rising=0.75, width=0.030),
    HairStyle(_MEN, 0.12, length=(0.25, 0.45), sweep=0.5, fringe=0.14, lift=0.05, rising=0.4, width=0.042),
    HairStyle(_MEN, 0.022, length=(0.03, 0.06), lift=0.006, rising=0.5, width=0.020),
    HairStyle(_RECEDING, 0.040, length=(0.08, 0.2), lift=0.02, rising=0.9, width=0.028),
    HairStyle(_BALD, 0.030, length=(0.06, 0.14), lift=0.01, width=0.024, locks=140),
    HairStyle(_FRINGE, 0.09, 0.05, length=(0.3, 0.6), fringe=0.12, lift=0.02, width=0.046),
    HairStyle(_BOB, 0.10, 0.16, length=(0.4, 0.8), sweep=0.3, lift=0.03, width=0.050),
    HairStyle(_LONG, 0.08, 0.18, length=(0.6, 1.2), sweep=0.3, lift=0.03, width=0.052, locks=300),
    HairStyle(_LONG, 0.12, 0.34, length=(0.6, 1.0), sweep=0.3, lift=0.06, curl=0.045, width=0.055, locks=320),
    HairStyle(_BACK, 0.045, length=(0.2, 0.4), sweep=0.2, lift=0.012, rising=1.0, width=0.028),
    HairStyle(_MEN, 0.20, length=(0.10, 0.18), lift=0.08, curl=0.05, rising=0.5, width=0.050, locks=360),
    HairStyle(_RECEDING, 0.08, length=(0.12, 0.22), lift=0.05, curl=0.035, rising=0.6, width=0.040, locks=320),
)  # fmt: skip
SHORT_STYLES = (0, 1, 2, 3, 4, 9, 10, 11)


def hair_depth(style: HairStyle, angle: Floats, y: Floats) -> Floats:
    """How far a point of the head lies inside the hairline; negative outside. Near the hairline, the distance to it."""
    at, height = (np.array(v, np.float64) for v in zip(*style.line))
    degrees = np.abs(np.degrees(angle))
    slope = np.interp(degrees, (at[1:] + at[:-1]) / 2, np.diff(height) / np.diff(at))
    return (y - np.interp(degrees, at, height)) / np.hypot(1, slope / _PER_DEGREE)


def _volume(style: HairStyle, mesh: HeadMesh) -> Floats:
    """(V, 3): how far a style's cap stands off the mean head."""
    x, y, z = mesh.vertices.T
    inside = hair_depth(style, mesh.angle, y)
    depth = np.clip((inside + 0.01) / 0.20, 0, 1)
    rise, slow = np.sqrt(depth) * (1.5 - 0.5 * depth), step(inside - 0.16, 0.04)
    out = np.stack([x, 0.85 * np.clip(y - 0.25, 0, None), z + 0.10], -1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True) + 1e-9
    hanging = np.clip((0.1 - y) / 0.6, 0, 1) * np.clip((y + 2.4) / 0.5, 0, 1)
    off = out * (rise * style.thickness + slow * style.hanging * hanging)[:, None]
    ear_x, ear_z = ear_offset(mesh.angle, y)  # hair over an ear lies flat on it
    off[:, 0] -= np.minimum(rise * 1.5, 1) * ear_x
    off[:, 2] -= np.minimum(rise * 1.5, 1) * ear_z
    return off


def _at(field: Floats, row: float, column: float) -> Floats:
    """A field (rows, columns, …) at a continuous place, bilinear."""
    r, c = min(int(row), field.shape[0] - 2), min(int(column), field.shape[1] - 2)
    up, along = row - r, column - c
    below = field[r, c] * (1 - along) + field[r, c + 1] * along
    return np.asarray(below * (1 - up) + (field[r + 1, c] * (1 - along) + field[r + 1, c + 1] * along) * up)


@dataclass(frozen=True)
class _Walk:
    """How a lock makes its way over the grid: up (+1) or down (−1) the rows, with a drift in columns per row."""

    depth: Floats  # (rows, columns), inside the hairline
    spans: Floats  # (rows − 1, columns), length between rows
    way: float
    drift: float
    side: float
    reach: float  # depth that a lock may go down to, below 0

    def advance(self, row: float, column: float, length: float) -> tuple[float, float]:
        """The place that is `length` further along."""
        rows, columns = self.depth.shape
        left = length
        while left > 1e-6 and 0 < row < rows - 1:
            below = int(np.ceil(row)) - 1 if self.way < 0 else int(row)
            span = self.spans[below, min(int(column), columns - 1)] + 1e-3
            taken = min(left / span, 1.0)
            column = min(max(column + self.drift * taken * (1.0 if row > 60 else 0.3), 0.0), columns - 1.0)
            moved = min(max(row + self.way * taken, 0.0), rows - 1.0)
            if self.way < 0 and _at(self.depth, moved, column) < self.reach:  # it follows the hairline instead
                column = min(max(column + 0.7 * self.side, 0.0), columns - 1.0)
                if _at(self.depth, moved, column) < self.reach - 0.03:
                    moved = row
            left -= max(taken * span, 0.2 * length)
            row = moved
        return row, column


def _locks(
    style: HairStyle, mesh: HeadMesh, volume: Floats, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Vertices (L, P) that the locks' points hang on, and offsets (L, P, 3) from them with the cap on."""
    rows, columns = mesh.grid
    cap = (mesh.vertices + volume).reshape(rows, columns, 3)
    depth = hair_depth(style, mesh.angle, mesh.vertices[:, 1]).reshape(rows, columns)
    # Roots by area, and three times as dense near the hairline, which is what the eye reads.
    area = np.linalg.norm(np.gradient(cap, axis=0), axis=-1) * np.linalg.norm(np.gradient(cap, axis=1), axis=-1)
    likely = (area * (depth > 0.01) * (1 + 2.0 * np.exp(-((depth / 0.15) ** 2)))).ravel()
    roots = rng.choice(rows * columns, style.locks, p=likely / likely.sum())
    spans = np.linalg.norm(np.diff(cap, axis=0), axis=-1)
    index = np.empty((style.locks, LOCK_POINTS), np.int32)
    offset = np.empty((style.locks, LOCK_POINTS, 3))
    for k, root in enumerate(roots):
        row, column = (float(v) + rng.random() - 0.5 for v in divmod(int(root), columns))
        row, column = min(max(row, 1.0), rows - 1.0), min(max(column, 0.0), columns - 1.0)
        side = 1.0 if column >= columns // 2 else -1.0
        drift = style.sweep * rng.uniform(0.5, 1.5) * side + 0.06 * rng.standard_normal()
        stride = rng.uniform(*style.length) / (LOCK_POINTS - 1)
        wave, phase = rng.uniform(0.6, 1.5), rng.uniform(0, 2 * np.pi, 3)
        bend = style.curl * np.sin(wave * np.arange(LOCK_POINTS)[:, None] + phase)
        way = 1.0 if rng.random() < style.rising else -1.0
        walk = _Walk(depth, spans, way, drift, side, -style.fringe * rng.random() ** 2)
        rise = rng.uniform(0.15, 1.0) * style.lift
        outward = volume[root] / (np.linalg.norm(volume[root]) + 1e-9)
        base = _at(cap, row, column)
        for p in range(LOCK_POINTS):
            place = _at(cap, row, column)
            # Locks are stiff: they follow the head, but not every ledge of the face below the hairline.
            base = place if p < 2 or _at(depth, row, column) > -0.02 else base + (place - base) * 0.8
            r, c = round(row), round(column)
            index[k, p] = r * columns + c
            offset[k, p] = base + bend[p] - bend[0] + outward * rise * (0.5 + 0.5 * p / LOCK_POINTS) - cap[r, c]
            row, column = walk.advance(row, column, stride)
    return index, offset


@dataclass(frozen=True)
class Hair:
    """All styles, ready to render: volumes (S, V, 3); per style the locks' vertices (L, P), offsets (L, P, 3)."""

    volumes: Floats32
    vertices: tuple[npt.NDArray[np.int32], ...]
    offsets: tuple[Floats32, ...] = field(repr=False)


@lru_cache(maxsize=1)
def hair() -> Hair:
    """The styles on the mean head, built once per process and the same everywhere."""
    mesh, rng = head_mesh(), np.random.default_rng(1066)
    volumes = [_volume(style, mesh) for style in STYLES]
    locks = [_locks(style, mesh, volume, rng) for style, volume in zip(STYLES, volumes)]
    return Hair(
        np.stack(volumes).astype(np.float32),
        tuple(index for index, _ in locks),
        tuple(offset.astype(np.float32) for _, offset in locks),
    )
