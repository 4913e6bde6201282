"""What of the surroundings each point of the head sees: self-shadow and ambient occlusion, from the mean head.

Computed once per process by rasterising the head from directions all around. At render time the shadow of a light is
the mean over the directions near it, which makes its edge soft; ambient occlusion is the mean over the hemisphere.
Shapes and expressions move the shadows with the skin; they do not cast new ones, and neither does hair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.morphable.head_mesh import head_mesh
from mtlsearch.faces.rendering import renderer

DIRECTIONS = 128
SHARPNESS = 50.0  # of the weights around a light's direction: its shadows' edges are about 20° wide
_MAP = 160  # pixels a side of the shadow maps


@dataclass(frozen=True)
class LightVisibility:
    """directions (D, 3), unit, in the head's coordinates; visible (D, V) uint8, 0 to 255; open (V,) float32, the share
    of the surroundings over each vertex, weighted by the cosine."""

    directions: Floats
    visible: npt.NDArray[np.uint8]
    open: npt.NDArray[np.float32]

    def weights(self, direction: Floats) -> npt.NDArray[np.float32]:
        """(D,) weights, sum 1, few above 0, of the directions around a light's unit direction (3,) in the head's
        coordinates."""
        weights = np.exp(SHARPNESS * (self.directions @ direction - 1))
        weights[weights < 0.04 * weights.max()] = 0
        return (weights / weights.sum()).astype(np.float32)


def _sphere(count: int) -> Floats:
    """Directions at equal distances: a Fibonacci spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1)


@lru_cache(maxsize=1)
def light_visibility() -> LightVisibility:
    """Computed once per process, in a fraction of a second."""
    mesh = head_mesh()
    points = mesh.vertices.astype(np.float32)
    normals = np.empty_like(points)
    renderer.vertex_normals(mesh.vertices * [1, -1, 1], mesh.triangles, normals)
    lifted = points + np.float32(0.03) * normals
    directions = _sphere(DIRECTIONS)
    visible = np.empty((DIRECTIONS, len(normals)), np.uint8)
    depth, owner = np.empty((_MAP, _MAP), np.float32), np.empty((_MAP, _MAP), np.int32)
    bary = np.empty((_MAP, _MAP, 2), np.float32)
    scale = _MAP / 5.4  # the head and its shoulders fill the map
    for d, direction in enumerate(directions):
        right = np.cross(np.eye(3)[int(abs(direction[1]) < 0.9)], direction)
        right /= np.linalg.norm(right)
        pose = np.zeros((3, 4))
        pose[:, :3] = np.stack([right, np.cross(direction, right), direction]) * scale
        pose[:2, 3] = _MAP / 2 - pose[:2, :3] @ np.array([0, -0.9, 0])
        pixels = np.empty(mesh.vertices.shape)
        renderer.to_pixels(points, pose, 0.0, _MAP, pixels)
        renderer.rasterise(pixels, mesh.triangles, depth, owner, bary)
        renderer.to_pixels(lifted, pose, 0.0, _MAP, pixels)
        column, row = np.clip(np.rint(pixels[:, 0]), 1, _MAP - 2), np.clip(np.rint(pixels[:, 1]), 1, _MAP - 2)
        column, row = column.astype(int), row.astype(int)
        free = np.zeros(len(normals))
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                free += depth[row + dy, column + dx] - pixels[:, 2] < 0.05 * scale
        visible[d] = free * (255 / 9)
    facing = np.clip(directions @ normals.T, 0, None)
    open_ = (facing * visible).sum(0) / 255 / (facing.sum(0) + 1e-6)
    open_ = cv2.GaussianBlur(open_.reshape(mesh.grid), (3, 3), 0).ravel()
    return LightVisibility(directions, visible, (0.30 + 0.70 * open_).astype(np.float32))
