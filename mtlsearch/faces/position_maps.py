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
from mtlsearch.faces.head_mesh import Floats, HeadMesh, Ints
from mtlsearch.faces.morphable_model import MorphableModel

Floats32 = npt.NDArray[np.float32]


def _texel_positions(mesh: HeadMesh, size: int) -> tuple[Floats, Floats]:
    """Grid columns of the texel columns (size,), and grid rows of the texel rows (size,)."""
    (first_row, last_row), (first_column, last_column) = mesh.chart
    return np.linspace(first_column, last_column, size), np.linspace(last_row, first_row, size)


@lru_cache(maxsize=4)
def _samples(mesh: HeadMesh, size: int) -> tuple[Ints, Floats32]:
    """For each texel (size·size), three vertices and their weights: a point of the surface."""
    columns, rows = _texel_positions(mesh, size)
    row, column = np.meshgrid(rows, columns, indexing="ij")
    vertices, weights = mesh.at_grid(row.ravel(), column.ravel())
    # The texel of a landmark samples the landmark itself, less than half a texel from its centre.
    u, v = landmark_texels(mesh, size).T
    vertices[v * size + u], weights[v * size + u] = mesh.landmark_vertices, mesh.landmark_weights
    return vertices, weights.astype(np.float32)


@lru_cache(maxsize=4)
def landmark_texels(mesh: HeadMesh, size: int = 256) -> Ints:
    """(68, 2) int: column u and row v of each landmark's texel in maps of size×size; all distinct."""
    columns, rows = _texel_positions(mesh, size)
    row, column = mesh.landmark_grid.T
    u = np.rint((column - columns[0]) / (columns[1] - columns[0]))
    v = np.rint((row - rows[0]) / (rows[1] - rows[0]))
    texels = np.stack([u, v], -1).astype(np.int32)
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
