"""The mean head as a mesh: a grid of columns (angle around the head) and rows (shoulders to crown).

One grid carries shoulders, neck, the underside of the jaw, the face, ears and skull. The jaw's edge and the edges of
lids and lips are rows of the grid, so the contour landmarks lie on the contour by construction, lids close over the
eyes and lips part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mtlsearch.faces.arrays import Floats, Ints
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.morphable import head_surface as surface

CHART_TOP, CHART_ANGLE = 0.84, 112.0
"""Height on the midline and angle of the columns where the face's chart ends."""


def _columns() -> Floats:
    """Angles in radians, from −π to π, dense in front and at the ears, symmetric to the last bit."""
    positive = np.radians(
        np.r_[np.arange(2.4, 48, 2.4), np.arange(51, 84, 4), np.arange(86, 118, 2), np.linspace(122, 180, 8)]
    )
    return np.r_[-positive[::-1], 0.0, positive]


@dataclass(frozen=True, eq=False)
class HeadMesh:
    """The mean head.

    vertices (V, 3) in the coordinates of `head_surface`; grid (rows, columns): vertices are stored row by row;
    triangles (T, 3), front faces counter-clockwise seen from outside (y up); uv (V, 2) in [0, 1] (column, row; 0 =
    shoulders); mirror (V,): the vertex on the other side; angle (V,) radians around the head; level (V,): the level of
    the vertex's row, see `head_surface`, −9 below the jaw; jaw_row: the row of the jaw's edge; landmark_vertices (68,
    3), landmark_weights (68, 3): barycentric points on the surface; chart: first and last row, first and last column of
    the face (under the jaw to above the hairline, ear to ear), which position maps cover.
    """

    vertices: Floats
    grid: tuple[int, int]
    triangles: Ints
    uv: Floats
    mirror: Ints
    angle: Floats
    level: Floats
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


def _surface() -> tuple[Floats, Floats, Floats, int]:
    """Points (rows, columns, 3), column angles, levels of the rows, the row of the jaw's edge."""
    angles = _columns()
    jaw = surface.JAW(np.abs(np.degrees(angles)))
    levels = surface.face_levels()[:, None]
    # Softplus: rows that would lie below the jaw gather just above its edge.
    soft, least = 0.03, 0.0012
    above = soft * np.logaddexp(0, (levels - jaw) / soft)
    height = jaw + np.concatenate([above[:1] * 0, np.maximum(np.diff(above, axis=0), least).cumsum(0)])
    crown = np.broadcast_to(surface.crown_levels()[:, None], (len(surface.crown_levels()), len(angles)))
    level = np.concatenate([np.broadcast_to(levels, height.shape), crown])
    height = np.concatenate([height, crown])
    face = surface.face_surface(level, np.broadcast_to(angles, level.shape), height)
    neck = surface.neck_surface(face[0], angles)
    return np.concatenate([neck, face]), angles, np.r_[np.full(len(neck), -9.0), level[:, 0]], len(neck)


def _triangulate(rows: int, columns: int) -> Ints:
    """Two triangles a cell; the diagonal changes sides in the middle, so that the mesh is its own mirror image."""
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    left = np.arange(columns - 1) < (columns - 1) // 2
    first = np.where(left[None, :, None], np.stack([a, b, d], -1), np.stack([a, b, c], -1))
    second = np.where(left[None, :, None], np.stack([a, d, c], -1), np.stack([b, d, c], -1))
    return np.ascontiguousarray(np.stack([first, second], 2).reshape(-1, 3))


JAW_ANGLES = (83.0, 82.5, 81.0, 73.0, 61.0, 47.0, 33.0, 17.0, 0.0)
"""Columns of landmarks 0–8 in degrees; 0 and 1 lie in front of the ear at the heights below, the rest on the
jaw's edge."""
_EAR_HEIGHTS = (-0.06, -0.27)
_BROW = ((0.540, 0.170), (0.472, 0.238), (0.375, 0.263), (0.270, 0.245), (0.160, 0.208))
_NOSE = ((0.0, 0.05), (0.0, -0.085), (0.0, -0.22), (0.0, -0.355), (0.125, -0.462), (0.065, -0.475), (0.0, -0.485))
_EYE_CORNER = surface.EYE_WIDTH - 0.004


def _targets() -> dict[int, tuple[float, float]]:
    """Where landmarks of the face's left half of the image (x ≤ 0) and the midline sit in the front view."""
    at = {17 + i: (-x, y) for i, (x, y) in enumerate(_BROW)} | {27 + i: (-x, y) for i, (x, y) in enumerate(_NOSE)}
    for number, x in ((36, -surface.EYE_X - _EYE_CORNER), (39, -surface.EYE_X + _EYE_CORNER)):
        at[number] = (x, float(surface.lid_edges(np.array(x))[1]))
    for number, x, border in ((48, -surface.MOUTH_WIDTH, 1), (49, -0.155, 2), (50, -0.055, 2), (51, 0.0, 2),
                              (59, -0.155, 0), (58, -0.070, 0), (57, 0.0, 0)):  # fmt: skip
        at[number] = (x, float(surface.lip_edges(np.array(x))[border]))
    return at


_ON_EDGES = (
    (37, -0.365, surface.UPPER_LID), (38, -0.262, surface.UPPER_LID), (40, -0.265, surface.LOWER_LID),
    (41, -0.360, surface.LOWER_LID), (60, -0.225, surface.UPPER_LIP), (61, -0.085, surface.UPPER_LIP),
    (62, 0.0, surface.UPPER_LIP), (66, 0.0, surface.LOWER_LIP), (67, -0.085, surface.LOWER_LIP),
)  # fmt: skip
"""Landmarks on the edges of lids and lips, which are rows of the grid: number, x, level of the row."""


def _on_row(points: Floats, row: int, x: float) -> tuple[Ints, Floats]:
    """The barycentric point of a row of the grid at x, in the front half."""
    columns = points.shape[1]
    line = points[row, columns // 4 : columns // 2 + 1, 0]
    column = columns // 4 + min(max(int(np.searchsorted(line, x, side="right")) - 1, 0), len(line) - 2)
    a, b = points[row, column, 0], points[row, column + 1, 0]
    along = (x - a) / (b - a)
    corner = row * columns + column
    return np.array([corner, corner + 1, corner + columns + 1], np.int32), np.array([1 - along, along, 0.0])


def _on_jaw(points: Floats, angles: Floats, jaw_row: int, number: int) -> tuple[Ints, Floats]:
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
    a = row * columns + column
    if along >= up:  # see `_triangulate`: left of the middle
        return np.array([a, a + 1, a + columns + 1], np.int32), np.array([1 - along, along - up, up])
    return np.array([a, a + columns + 1, a + columns], np.int32), np.array([1 - up, along, up - along])


def _in_front_view(vertices: Floats, triangles: Ints, x: float, y: float) -> tuple[Ints, Floats]:
    """The foremost barycentric point of the surface at (x, y) as seen from the front."""
    corners = vertices[triangles][..., :2]
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    p = np.array([x, y]) - corners[:, 0]
    shown = np.where(area > 1e-9, area, np.inf)
    w1 = (p[:, 0] * e2[:, 1] - p[:, 1] * e2[:, 0]) / shown
    w2 = (e1[:, 0] * p[:, 1] - e1[:, 1] * p[:, 0]) / shown
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
    points, angles, levels, jaw_row = _surface()
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
    for i in range(9):
        at[i], weights[i] = _on_jaw(points, angles, jaw_row, i)
    for i, (x, y) in _targets().items():
        at[i], weights[i] = _in_front_view(vertices, front, x, y)
    for i, x, level in _ON_EDGES:
        at[i], weights[i] = _on_row(points, int(np.searchsorted(levels, level - 1e-9)), x)
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
        level=np.repeat(levels, columns),
        jaw_row=jaw_row,
        landmark_vertices=at,
        landmark_weights=weights,
        chart=_chart(points, angles, jaw_row),
    )
