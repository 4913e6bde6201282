"""Position maps: a face as an image whose texel (v, u) holds the position of one point of its surface.

The maps of Feng et al., "Joint 3D Face Reconstruction and Dense Alignment with Position Map Regression Network", ECCV
2018, https://arxiv.org/abs/1803.07835, as Basak 2023 trains on them: x and y in pixels of the crop, z in the same scale
shifted to min 0 and growing towards the viewer (with y down, a left-handed system). Row 0 is the forehead, column 0 the
image's left in a frontal view. The chart is the part of our model's grid from under the jaw to above the hairline and
from ear to ear, so every texel holds a point of the face.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats, Ints
from mtlsearch.faces.morphable.head_mesh import HeadMesh
from mtlsearch.faces.morphable.morphable_model import MorphableModel

Floats32 = npt.NDArray[np.float32]


@lru_cache(maxsize=4)
def _axes(mesh: HeadMesh) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """How the chart spreads the grid: (grid rows, their v in [0, 1]) and (grid columns, their u), both increasing.

    Half by number and half by length on the face, so that neither the rows crowded at eyes and mouth nor the wide ones
    of the forehead fill the map.
    """
    (first_row, last_row), (first_column, last_column) = mesh.chart
    points = mesh.vertices.reshape(*mesh.grid, 3)
    middle, eyes = mesh.grid[1] // 2, int(np.searchsorted(mesh.level.reshape(mesh.grid)[:, 0], 0.0))
    axes: list[tuple[Floats, Floats]] = []
    for first, last, line in (
        (first_row, last_row, points[first_row : last_row + 1, middle]),
        (first_column, last_column, points[eyes, first_column : last_column + 1]),
    ):
        index = np.arange(first, last + 1, dtype=np.float64)
        length = np.r_[0, np.linalg.norm(np.diff(line, axis=0), axis=-1).cumsum()]
        axes.append((index, (index - first) / (last - first) / 2 + length / length[-1] / 2))
    (rows, v), (columns, u) = axes
    u = (u + 1 - u[::-1]) / 2  # symmetric to the last bit
    return (rows[::-1], 1 - v[::-1]), (columns, u)


def to_texels(mesh: HeadMesh, grid: Floats, size: int = 256) -> Floats:
    """Places (N, 2) in the mesh's grid, row and column -> (N, 2) in a map of size×size, column u and row v."""
    (rows, v), (columns, u) = _axes(mesh)
    at = np.interp(-grid[:, 0], -rows, v)
    return np.stack([np.interp(grid[:, 1], columns, u), at], -1) * (size - 1)


def to_grid(mesh: HeadMesh, texels: Floats, size: int = 256) -> Floats:
    """The inverse of `to_texels`: (N, 2) columns u and rows v of a map -> (N, 2) rows and columns of the grid."""
    (rows, v), (columns, u) = _axes(mesh)
    at = np.asarray(texels, np.float64) / (size - 1)
    return np.stack([np.interp(at[:, 1], v, rows), np.interp(at[:, 0], u, columns)], -1)


@lru_cache(maxsize=4)
def _samples(mesh: HeadMesh, size: int) -> tuple[Ints, Floats32]:
    """For each texel (size·size), three vertices and their weights: a point of the surface."""
    v, u = np.divmod(np.arange(size * size), size)
    vertices, weights = mesh.at_grid(*to_grid(mesh, np.stack([u, v], -1), size).T)
    # The texel of a landmark samples the landmark itself, less than half a texel from its centre.
    u, v = landmark_texels(mesh, size).T
    vertices[v * size + u], weights[v * size + u] = mesh.landmark_vertices, mesh.landmark_weights
    return vertices, weights.astype(np.float32)


@lru_cache(maxsize=4)
def landmark_texels(mesh: HeadMesh, size: int = 256) -> Ints:
    """(68, 2) int: column u and row v of each landmark's texel in maps of size×size; all distinct."""
    texels = np.rint(to_texels(mesh, mesh.landmark_grid, size) + 1e-9).astype(np.int32)
    if len(np.unique(texels, axis=0)) < len(texels):
        raise InputError(f"a position map of {size}×{size} cannot tell the 68 landmarks apart; use 128 or more")
    return texels


def position_map(vertices: npt.NDArray[np.floating], model: MorphableModel, size: int = 256) -> Floats32:
    """The position map of a face.

    vertices (V, 3): the model's vertices in pixels of the crop, y down, z in the same scale towards the viewer. Returns
    (size, size, 3) float32: x, y, and z less its smallest value in the map. Landmark k is at `map[v, u]` with (u, v) =
    `landmark_texels(model.mesh, size)[k]`. Raises InputError for vertices of another model and for sizes that are too
    small to tell landmarks apart.
    """
    if vertices.shape != model.mean.shape:
        raise InputError(f"position_map takes vertices of shape {model.mean.shape}, got {vertices.shape}")
    corners, weights = _samples(model.mesh, size)
    points = vertices.astype(np.float32)
    out = points[corners[:, 0]] * weights[:, :1]
    out += points[corners[:, 1]] * weights[:, 1:2]
    out += points[corners[:, 2]] * weights[:, 2:]
    out[:, 2] -= out[:, 2].min()
    return out.reshape(size, size, 3)
