"""The mean head: an analytic surface on a grid of columns (angle around the head) and rows (shoulders to crown).

Model units: half the width of the face is about 0.76; x right, y up, z towards the viewer; the origin lies inside the
head, level with the bridge of the nose. One grid carries shoulders, neck, the underside of the jaw, the face, ears and
skull, so that the jaw is a row of the grid: it is round, and the contour landmarks lie on it by construction.

The numbers below are proportions of an average head, drawn up for this library; no scan or data set went into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from mtlsearch.faces.geometry import FLIP_68

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

CENTRE_Z = -0.10  # the axis that the columns turn around
CHART_TOP, CHART_ANGLE = 0.90, 108.0  # height on the midline and angle of the columns where the face's chart ends


def _curve(*points: tuple[float, float]) -> PchipInterpolator:
    xs, ys = zip(*sorted(points))
    return PchipInterpolator(xs, ys)


_WIDTH = _curve(
    (-0.87, 0.60), (-0.78, 0.62), (-0.69, 0.65), (-0.55, 0.68), (-0.37, 0.70), (-0.2, 0.725), (0.0, 0.745),
    (0.2, 0.755), (0.35, 0.745), (0.6, 0.73), (1.2, 0.73),
)  # fmt: skip
_DEPTH_FRONT = _curve((-0.87, 0.92), (-0.6, 0.93), (-0.3, 0.92), (0.1, 0.92), (0.45, 0.94), (1.2, 0.95))
_DEPTH_BACK = _curve((-0.9, 0.45), (-0.45, 0.52), (-0.3, 0.62), (0.0, 0.84), (0.3, 0.90), (1.2, 0.90))
_SQUARENESS = _curve((-0.9, 2.0), (-0.4, 2.1), (0.0, 2.45), (0.4, 2.5), (1.2, 2.3))
_JAW = _curve(  # height of the jaw's edge by the angle of the column, degrees
    (0, -0.870), (10, -0.866), (22.3, -0.845), (37.8, -0.78), (50.4, -0.69), (61.9, -0.55), (70.6, -0.37),
    (80, -0.20), (88, -0.08), (96, -0.06), (120, -0.20), (150, -0.38), (180, -0.42),
)  # fmt: skip
_PROFILE = _curve(  # z of the midline
    (1.2, 0.60), (0.75, 0.79), (0.62, 0.845), (0.46, 0.885), (0.36, 0.87), (0.27, 0.845), (0.14,
    0.92), (0.02, 1.02),
    (-0.06, 1.085), (-0.10, 1.09), (-0.145, 1.03), (-0.185, 0.945), (-0.25, 0.945), (-0.33, 0.985),
    (-0.375, 0.995),
    (-0.42, 0.955), (-0.46, 0.985), (-0.52, 0.97), (-0.59, 0.905), (-0.66, 0.915), (-0.74, 0.935),
    (-0.82, 0.90),
    (-0.87, 0.83), (-1.0, 0.8),
)  # fmt: skip
_PROFILE_WIDTH = _curve(  # how far to the sides the midline's relief reaches
    (1.2, 0.4), (0.6, 0.35), (0.45, 0.20), (0.27, 0.075), (0.12, 0.085), (0.0, 0.10), (-0.08,
    0.115), (-0.14, 0.12),
    (-0.19, 0.10), (-0.25, 0.15), (-0.33, 0.22), (-0.5, 0.24), (-0.59, 0.26), (-0.74, 0.22), (-0.9, 0.22),
)  # fmt: skip


def bump(x: Floats, y: Floats, cx: float, cy: float, sx: float, sy: float) -> Floats:
    """A Gaussian bump of height 1."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def _columns() -> Floats:
    """Angles in radians, from −π to π, dense in front, symmetric to the last bit."""
    positive = np.radians(np.r_[np.arange(2.5, 45, 2.5), np.arange(45, 112, 5), np.linspace(118, 180, 7)])
    return np.r_[-positive[::-1], 0.0, positive]


def _face_levels() -> Floats:
    """Heights of the rows on the midline from the jaw to the hairline, dense at mouth, nose base and eyes."""
    return np.r_[
        np.arange(-0.87, -0.55, 0.04), -0.55, -0.515, -0.485, -0.46, -0.44, -0.425, -0.415, -0.40,
        -0.38, -0.35,
        -0.32, -0.28, -0.24, -0.21, -0.185, -0.16, -0.13, -0.095, -0.06, -0.02, 0.03, 0.08, 0.13,
        0.175, 0.205, 0.23,
        0.255, 0.28, 0.305, 0.335, 0.37, 0.41, 0.45, 0.49, 0.53, 0.58, 0.64, 0.70,
    ]  # fmt: skip


def _section(angle: Floats, y: Floats) -> tuple[Floats, Floats]:
    """x and z of the bare head (no features) at an angle and a height."""
    closing = np.clip((y - 0.30) / 0.90, 0, 1)  # the skull closes towards the crown at y = 1.2
    closing = (1 - closing**2.4) ** (1 / 2.4)
    side, n = np.abs(np.sin(angle)), _SQUARENESS(y)
    front = (np.clip(1 - side**n, 0, None)) ** (1 / n) * _DEPTH_FRONT(y)
    back = -(np.clip(1 - side**2.2, 0, None) ** (1 / 2.2)) * _DEPTH_BACK(y)
    z = CENTRE_Z + np.where(np.cos(angle) >= 0, front, back) * closing
    return _WIDTH(y) * np.sin(angle) * closing, z


def ears(angle: Floats, y: Floats) -> tuple[Floats, Floats]:
    """How far the ears stand off the head, in x and in z."""
    ear = np.exp(-(((y - 0.10) / 0.21) ** 4) - ((np.abs(np.degrees(angle)) - 99) / 8) ** 2)
    return np.sign(angle) * 0.115 * ear, -0.05 * ear


def _features(x: Floats, y: Floats, z: Floats, angle: Floats) -> tuple[Floats, Floats, Floats]:
    """Nose, eyes, mouth, chin and ears, added to the bare head."""
    front = 1 / (1 + np.exp(-(np.cos(angle) - 0.25) / 0.06))
    relief = _PROFILE(np.clip(y, -1, 1.2)) - (CENTRE_Z + _DEPTH_FRONT(y) * 1.0)
    width = _PROFILE_WIDTH(np.clip(y, -0.9, 1.2))
    fade = np.clip((0.95 - y) / 0.25, 0, 1)
    dz = relief * np.exp(-((np.abs(x) / width) ** 2.3)) * fade
    ax = np.abs(x)
    dz += 0.055 * bump(ax, y, 0.105, -0.135, 0.042, 0.045)  # alae
    dz -= 0.035 * bump(ax, y, 0.165, -0.16, 0.04, 0.07)  # the fold beside them
    dz -= 0.085 * bump(ax, y, 0.24, 0.27, 0.17, 0.09)  # eye sockets
    dz += 0.050 * bump(ax, y, 0.31, 0.25, 0.12, 0.065)  # eyeballs
    dz -= 0.016 * bump(ax, y, 0.31, 0.325, 0.14, 0.014)  # crease of the upper lid
    dz -= 0.010 * bump(ax, y, 0.31, 0.19, 0.13, 0.014)  # crease of the lower lid
    dz += 0.035 * bump(ax, y, 0.36, 0.44, 0.22, 0.07)  # brow ridge
    dz += 0.045 * bump(ax, y, 0.44, 0.02, 0.17, 0.15)  # cheekbones
    dz += 0.025 * bump(ax, y, 0.33, -0.22, 0.13, 0.14)
    dz -= 0.020 * bump(ax, y, 0.29, -0.42, 0.05, 0.06)  # corners of the mouth
    dz -= 0.030 * bump(ax, y, 0.0, -0.42, 0.19, 0.014)  # the seam of the lips
    dz -= 0.014 * bump(ax, y, 0.0, -0.26, 0.03, 0.06)  # philtrum
    out, back = ears(angle, y)
    return x + out, y, z + dz * front + back


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """The mean head.

    vertices (V, 3) model units; grid (rows, columns): vertices are stored row by row; triangles (T, 3), front faces
    counter-clockwise seen from outside (y up); uv (V, 2) in [0, 1] (column, row; 0 = shoulders); mirror (V,): the
    vertex on the other side; chart: first and last row, first and last column of the face (under the jaw to above the
    hairline, ear to ear), which position maps cover; angle (V,) radians around the head; jaw_row: the row of the jaw's edge; landmark_vertices
    (68, 3), landmark_weights (68, 3): barycentric points on the surface.
    """

    vertices: Floats
    grid: tuple[int, int]
    triangles: Ints
    uv: Floats
    mirror: Ints
    angle: Floats
    jaw_row: int
    landmark_vertices: Ints
    landmark_weights: Floats
    chart: tuple[tuple[int, int], tuple[int, int]]

    def at_grid(self, row: Floats, column: Floats) -> tuple[Ints, Floats]:
        """The surface at continuous places (N,), (N,) of the grid: vertices (N, 3) and their weights (N, 3)."""
        rows, columns = self.grid
        r = np.clip(np.floor(row + 1e-9).astype(np.int32), 0, rows - 2)
        c = np.clip(np.floor(column + 1e-9).astype(np.int32), 0, columns - 2)
        up, along = np.clip(row - r, 0, 1), np.clip(column - c, 0, 1)
        lower_left = r * columns + c
        a, b, d, e = lower_left, lower_left + 1, lower_left + columns, lower_left + columns + 1
        # The diagonal joins a and e in the left half, b and d in the right one: see `_triangulate`.
        left = c < (columns - 1) // 2
        below = np.where(left, along >= up, along + up <= 1)
        third = np.where(left, np.where(below, b, d), np.where(below, a, e))
        vertices = np.stack([np.where(left, a, b), np.where(left, e, d), third], -1).astype(np.int32)
        high, low = np.maximum(along, up), np.minimum(along, up)
        total = along + up
        weights = np.where(
            left[:, None],
            np.stack([1 - high, low, high - low], -1),
            np.stack([np.where(below, along, 1 - up), np.where(below, up, 1 - along), np.abs(1 - total)], -1),
        )
        return vertices, weights

    @cached_property
    def landmark_grid(self) -> Floats:
        """(68, 2): row and column of each landmark in the grid, continuous."""
        row, column = np.divmod(self.landmark_vertices, self.grid[1])
        return np.stack([(place * self.landmark_weights).sum(1) for place in (row, column)], -1)


def _surface() -> tuple[Floats, Floats, int]:
    """Points (rows, columns, 3), column angles, the row of the jaw's edge."""
    angles = _columns()
    degrees = np.abs(np.degrees(angles))
    jaw_y = _JAW(degrees)

    levels = _face_levels()[:, None]
    # Softplus: rows that would lie below the jaw gather just above its edge.
    soft = 0.035
    above = soft * np.logaddexp(0, (levels - jaw_y) / soft)
    y = jaw_y + above - above[:1]
    tip = np.linspace(0, 1, 14)[1:, None]
    crown = 0.30 + 0.90 * np.sin(np.arcsin((0.70 - 0.30) / 0.90) * (1 - tip) + np.pi / 2 * tip)
    y = np.concatenate([y, np.broadcast_to(crown, (len(crown), len(angles)))])
    angle = np.broadcast_to(angles, y.shape)
    x, z = _section(angle, y)
    face = np.stack(_features(x, y, z, angle), -1)

    edge = face[0]
    neck_y = _curve((0, -0.99), (60, -0.86), (90, -0.62), (130, -0.55), (180, -0.58))(degrees)
    neck = np.stack([0.46 * np.sin(angles), neck_y, -0.17 + np.where(degrees < 90, 0.44, 0.36) * np.cos(angles)], -1)
    control = edge + np.stack([0 * angles, np.where(degrees < 95, -0.085, -0.03), 0 * angles], -1)
    under = [(1 - t) ** 2 * edge + 2 * t * (1 - t) * control + t * t * neck for t in (0.97, 0.75, 0.52, 0.3, 0.12)]
    lower = []
    for height, rx, rz, back in ((-1.95, 1.75, 0.55, -0.25), (-1.62, 1.45, 0.50, -0.24), (-1.42,
        0.95, 0.46, -0.22),
                                 (-1.30, 0.60, 0.44, -0.20), (-1.18, 0.475, 0.42, -0.18)):  # fmt: skip
        lower.append(np.stack([rx * np.sin(angles), np.full_like(angles, height), back + rz * np.cos(angles)], -1))
    rows = np.concatenate([np.stack(lower + under), face])
    rows[..., 2] *= np.where(rows[..., 2] > 0, 1.09, 1.0)
    return rows, angles, len(lower) + len(under)


def _triangulate(rows: int, columns: int) -> Ints:
    """Two triangles a cell; the diagonal changes sides in the middle, so that the mesh is its own mirror image."""
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    left = np.arange(columns - 1) < (columns - 1) // 2
    first = np.where(left[None, :, None], np.stack([a, b, d], -1), np.stack([a, b, c], -1))
    second = np.where(left[None, :, None], np.stack([a, d, c], -1), np.stack([b, d, c], -1))
    return np.ascontiguousarray(np.stack([first, second], 2).reshape(-1, 3))


def _targets() -> list[tuple[float, float]]:
    """Where landmarks 17–67 of the face's left half of the image (x ≤ 0) and the midline sit, front view, model
    units."""
    at: dict[int, tuple[float, float]] = {}
    brow = ((0.575, 0.415), (0.49, 0.475), (0.385, 0.505), (0.28, 0.495), (0.185, 0.462))
    at.update({17 + i: (-x, y) for i, (x, y) in enumerate(brow)})
    at.update({27 + i: (0.0, y) for i, y in enumerate((0.27, 0.155, 0.04, -0.075))})
    at.update({31: (-0.125, -0.172), 32: (-0.062, -0.186), 33: (0.0, -0.197)})
    eye = ((0.44, 0.25), (0.365, 0.292), (0.26, 0.292), (0.185, 0.245), (0.26, 0.222), (0.36, 0.218))
    at.update({36 + i: (-x, y) for i, (x, y) in enumerate(eye)})
    at.update({48: (-0.25, -0.42), 49: (-0.16, -0.362), 50: (-0.06, -0.33), 51: (0.0, -0.338)})
    at.update({59: (-0.16, -0.473), 58: (-0.08, -0.5), 57: (0.0, -0.508)})
    at.update({60: (-0.225, -0.4195), 61: (-0.08, -0.408), 62: (0.0, -0.41), 66: (0.0, -0.432), 67: (-0.08, -0.431)})
    return [at.get(i, (np.nan, np.nan)) for i in range(68)]


JAW_ANGLES = (83.0, 82.0, 80.0, 71.0, 62.0, 50.5, 37.5, 21.0, 0.0)
"""Columns of landmarks 0–8 in degrees; 0 and 1 lie in front of the ear at the heights below, the rest on the
edge."""
_EAR_HEIGHTS = (0.19, 0.0)


def _on_grid(points: Floats, angles: Floats, jaw_row: int, number: int) -> tuple[Ints, Floats]:
    """The barycentric point of jaw landmark `number` (0–8)."""
    columns = points.shape[1]
    target = -np.radians(JAW_ANGLES[number])
    column = min(int(np.searchsorted(angles, target + 1e-12, side="right")) - 1, columns - 2)
    along = (target - angles[column]) / (angles[column + 1] - angles[column])
    row, up = jaw_row, 0.0
    if number < len(_EAR_HEIGHTS):
        heights = points[:, column, 1] * (1 - along) + points[:, column + 1, 1] * along
        row = jaw_row + int(np.searchsorted(heights[jaw_row:], _EAR_HEIGHTS[number])) - 1
        up = (_EAR_HEIGHTS[number] - heights[row]) / (heights[row + 1] - heights[row])
    a, b = row * columns + column, row * columns + column + 1
    c, d = a + columns, b + columns
    # Left of the middle a cell splits into (a, b, d) and (a, d, c).
    if along >= up:
        return np.array([a, b, d], np.int32), np.array([1 - along, along - up, up])
    return np.array([a, d, c], np.int32), np.array([1 - up, along, up - along])


def _in_front_view(vertices: Floats, triangles: Ints, x: float, y: float) -> tuple[Ints, Floats]:
    """The foremost barycentric point of the surface at (x, y) as seen from the front."""
    corners = vertices[triangles][..., :2]
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    p = np.array([x, y]) - corners[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        w1 = (p[:, 0] * e2[:, 1] - p[:, 1] * e2[:, 0]) / area
        w2 = (e1[:, 0] * p[:, 1] - e1[:, 1] * p[:, 0]) / area
    weights = np.stack([1 - w1 - w2, w1, w2], -1)
    inside = (area > 1e-9) & (weights > -1e-9).all(-1)
    depth = np.where(inside, (weights * vertices[triangles][..., 2]).sum(-1), -np.inf)
    best = int(np.argmax(depth))
    assert inside[best], (x, y)
    return triangles[best], weights[best]


def _chart(points: Floats, angles: Floats, jaw_row: int) -> tuple[tuple[int, int], tuple[int, int]]:
    middle = len(angles) // 2
    top = int(np.argmax(points[:, middle, 1] > CHART_TOP))
    side = int(np.searchsorted(angles, -np.radians(CHART_ANGLE)))
    return (jaw_row - 2, top), (side, len(angles) - 1 - side)


@lru_cache(maxsize=1)
def head_mesh() -> HeadMesh:
    """The mean head with its 68 landmarks. Built once per process, in well under a second."""
    points, angles, jaw_row = _surface()
    rows, columns = points.shape[:2]
    # Symmetric to the last bit: the right half is the mirror image of the left.
    middle = columns // 2
    points[:, middle + 1 :] = points[:, :middle][:, ::-1] * [-1, 1, 1]
    points[:, middle, 0] = 0.0
    vertices = points.reshape(-1, 3)
    triangles = _triangulate(rows, columns)
    mirror = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)[:, ::-1].ravel()
    u, v = np.meshgrid(np.arange(columns) / (columns - 1), np.arange(rows) / (rows - 1))

    at = np.zeros((68, 3), np.int32)
    weights = np.zeros((68, 3))
    front = triangles[(triangles[:, 0] // columns >= jaw_row)]
    front = front[np.abs(angles[front % columns]).max(-1) < np.radians(85)]
    for i, (x, y) in enumerate(_targets()):
        if i < 9:
            at[i], weights[i] = _on_grid(points, angles, jaw_row, i)
        elif not np.isnan(x):
            at[i], weights[i] = _in_front_view(vertices, front, x, y)
    for k, other in enumerate(FLIP_68):
        if not weights[k].any():  # the right half: the mirror image of the left
            at[k], weights[k] = mirror[at[other]], weights[other]
        elif other == k:  # the midline, exactly: no weight off the middle column
            on = at[k] % columns == middle
            weights[k] = np.where(on, weights[k], 0) / weights[k][on].sum()
    return HeadMesh(
        vertices=vertices,
        grid=(rows, columns),
        triangles=triangles,
        uv=np.stack([u.ravel(), v.ravel()], -1),
        mirror=mirror,
        angle=np.tile(angles, rows),
        jaw_row=jaw_row,
        landmark_vertices=at,
        landmark_weights=weights,
        chart=_chart(points, angles, jaw_row),
    )
