"""The 520 dense points of the `dense` system: places in the position map, and who mirrors whom.

Basak 2023 starts from points "across the jaw, forehead, and nose tip", runs Delaunay on the template, adds centroids
for three rounds, and edits by hand, so the paper's exact 520 cannot be derived. Ours follow a stated rule on the chart
of `position_maps`:

1. the 17 points of the jaw, an arc over the forehead and the tip of the nose;
2. on the left half, Delaunay triangulation and the centroids of its triangles, three rounds; mirrored to the right;
3. the 68 landmarks; centroids closer than 3 texels of 256 to a landmark are dropped, and of two so close the later;
4. filled to 520 by farthest-point sampling in mirror pairs, within the outline of jaw and arc.

    python -m mtlsearch.faces.morphable.dense_points docs/images/dense-points.png

draws them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, cKDTree

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats, Ints
from mtlsearch.faces.geometry import FLIP_68, pose_matrix, project
from mtlsearch.faces.morphable.head_mesh import HeadMesh, head_mesh
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.morphable.position_maps import to_grid, to_texels
from mtlsearch.faces.packs.safe_files import check_size, load_npy

COUNT = 520
MAP_SIZE = 256
_ROUNDS = 3
_ARC = 4  # points of the forehead's arc on each side, and one on the midline
_APART = 3.0  # texels
_MIDDLE = (MAP_SIZE - 1) / 2
_INDEX_FILE_LIMIT = 1 << 20


@dataclass(frozen=True, eq=False)
class DensePoints:
    """Places in the position map.

    texels (K, 2): column u and row v in a map of 256×256, continuous; flip (K,): `points[flip]` puts the points of a
    mirrored face back in order, an involution; landmarks (68,): which of them are the 68, or None in a user's.
    """

    texels: Floats
    flip: Ints
    landmarks: Ints | None

    def __len__(self) -> int:
        return len(self.texels)

    def on_mesh(self, mesh: HeadMesh) -> tuple[Ints, Floats]:
        """Three vertices (K, 3) and their weights (K, 3): points are `(vertices[at] * weights[..., None]).sum(1)`."""
        return mesh.at_grid(*to_grid(mesh, self.texels, MAP_SIZE).T)

    def from_map(self, position_map: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """(256, 256, C) -> (K, C): the map at the points, bilinear."""
        u, v = self.texels.astype(np.float32).T[:, None]
        return np.asarray(cv2.remap(position_map.astype(np.float32), u, v, cv2.INTER_LINEAR)[0], np.float32)


def _mirrored(texels: Floats) -> Floats:
    return texels * [-1, 1] + [MAP_SIZE - 1, 0]


def _start(landmarks: Floats) -> Floats:
    """Left half and midline of step 1."""
    brows, ear = landmarks[17:27, 1].min(), landmarks[0]
    turn = np.linspace(0, np.pi / 2, _ARC + 1)
    base = (brows + ear[1]) / 2
    arc = np.stack([_MIDDLE - (_MIDDLE - ear[0]) * np.cos(turn) ** 0.5, base - (base - 1.5) * np.sin(turn) ** 0.5], -1)
    arc[-1, 0] = _MIDDLE
    return np.concatenate([landmarks[:9], arc, landmarks[30:31]])


def outline(landmarks: Floats) -> npt.NDArray[np.bool_]:
    """(256, 256) bool: the texels within jaw and forehead arc of landmarks (68, 2), which the dense points fill."""
    half = _start(landmarks)
    hull = cv2.convexHull(np.concatenate([half, _mirrored(half)]).astype(np.float32)).astype(np.int32)
    return np.asarray(cv2.fillConvexPoly(np.zeros((MAP_SIZE, MAP_SIZE), np.uint8), hull, 1), np.bool_)


def _subdivided(half: Floats) -> Floats:
    for _ in range(_ROUNDS):
        half = np.concatenate([half, half[Delaunay(half).simplices].mean(1)])
    return half


def _spread(points: list[Floats], candidates: Floats) -> list[Floats]:
    """`points` (left half and midline) filled up in mirror pairs, farthest candidate first."""

    def total() -> int:
        return sum(1 if abs(p[0] - _MIDDLE) < 1e-9 else 2 for p in points)

    every = np.concatenate([np.array(points), _mirrored(np.array(points))])
    distance = cKDTree(every).query(candidates)[0]
    while total() < COUNT:
        only_middle = COUNT - total() == 1
        allowed = np.abs(candidates[:, 0] - _MIDDLE) < 1e-9 if only_middle else candidates[:, 0] < _MIDDLE - 2
        best = candidates[int(np.argmax(np.where(allowed, distance, -1)))]
        points.append(best)
        for point in (best, _mirrored(best)):
            distance = np.minimum(distance, np.linalg.norm(candidates - point, axis=1))
    return points


@lru_cache(maxsize=1)
def dense_points() -> DensePoints:
    """The library's 520 points, on its own chart."""
    mesh = head_mesh()
    return dense_points_on(to_texels(mesh, mesh.landmark_grid, MAP_SIZE))


def dense_points_on(landmarks: Floats) -> DensePoints:
    """520 points by the rule above, landmarks first, on any chart whose landmarks lie at these texels (68, 2)."""
    landmarks = (landmarks + _mirrored(landmarks)[list(FLIP_68)]) / 2  # symmetric to the last bit
    kept = [p for p in landmarks if p[0] < _MIDDLE + 1e-9]
    for point in _subdivided(_start(landmarks)):
        if np.linalg.norm(np.array(kept) - point, axis=1).min() >= _APART and not 0 < _MIDDLE - point[0] < _APART / 2:
            kept.append(point)
    v, u = np.nonzero(outline(landmarks)[:, : MAP_SIZE // 2])
    rows = np.unique(v)
    middle = np.stack([np.full(len(rows), _MIDDLE), rows], -1)
    half = np.array(_spread(kept, np.concatenate([np.stack([u, v], -1).astype(np.float64), middle])))
    ours = half[sum(p[0] < _MIDDLE + 1e-9 for p in landmarks) :]
    sides = ours[ours[:, 0] < _MIDDLE - 1e-9]
    texels = np.concatenate([landmarks, ours[ours[:, 0] > _MIDDLE - 1e-9], sides, _mirrored(sides)])
    return DensePoints(texels, _flip_of(texels, 1e-6), np.arange(68, dtype=np.int32))


def _flip_of(texels: Floats, tolerance: float) -> Ints:
    """The permutation that mirrors the points; InputError where a point has no partner within `tolerance` texels."""
    distance, flip = cKDTree(texels).query(_mirrored(texels))
    alone = (distance > tolerance) | (flip[flip] != np.arange(len(flip)))
    if alone.any():
        first = int(np.flatnonzero(alone)[0])
        raise InputError(
            f"{int(alone.sum())} of {len(texels)} dense points have no mirror image among the others within "
            f"{tolerance:g} texels (the first: number {first}, at {texels[first].tolist()}); flips of the data need one"
        )
    return flip.astype(np.int32)


def after_landmarks(points: DensePoints, landmarks: Floats) -> DensePoints:
    """A user's points behind the 68 landmarks (68, 2) of their chart, less those within a texel of a landmark."""
    own = cKDTree(landmarks).query(points.texels)[0] > 1
    own &= own[points.flip]  # a point goes with its mirror image
    index = np.cumsum(own) - 1 + 68
    flip = np.concatenate([np.array(FLIP_68), index[points.flip[own]]])
    return DensePoints(
        np.concatenate([landmarks, points.texels[own]]), flip.astype(np.int32), np.arange(68, dtype=np.int32)
    )


def load_dense_points(path: str | Path, tolerance: float = 4.0) -> DensePoints:
    """A user's own points: a .npy or text file of (2, K) or (K, 2) numbers, column and row in 256×256 position maps.

    `uv_kpt_ind.txt` of the published position maps has this layout. Points are paired with their mirror images, which
    must lie within `tolerance` texels. Raises InputError for anything else in the file.
    """
    path = check_size(path, _INDEX_FILE_LIMIT)
    if path.suffix == ".npy":
        values = load_npy(path, _INDEX_FILE_LIMIT)
    else:
        try:
            values = np.loadtxt(path, ndmin=2)
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a table of numbers ({error})") from error
    if values.ndim != 2 or 2 not in values.shape or not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{path} holds {values.dtype} of shape {values.shape}; expected (2, K) or (K, 2) numbers")
    texels = np.asarray(values if values.shape[1] == 2 else values.T, np.float64)
    if not (np.isfinite(texels).all() and (texels >= 0).all() and (texels <= MAP_SIZE - 1).all()):
        raise InputError(f"{path}: columns and rows must lie in [0, {MAP_SIZE - 1}]")
    if len(np.unique(texels, axis=0)) < len(texels):
        raise InputError(f"{path}: some of its {len(texels)} points coincide")
    return DensePoints(texels, _flip_of(texels, tolerance), None)


def draw_dense_points(scale: int = 2) -> npt.NDArray[np.uint8]:
    """A figure (H, W, 3) RGB: the points in the map, and on the mean face; landmarks in red."""
    points, model = dense_points(), morphable_model()
    at, weights = points.on_mesh(model.mesh)
    dense = (model.mean[at] * weights[..., None]).sum(1)
    side = MAP_SIZE * scale
    figure = np.full((side, 3 * side, 3), 255, np.uint8)
    inside = np.repeat(np.repeat(outline(points.texels[:68]), scale, 0), scale, 1)
    figure[:, :side][inside] = (238, 240, 244)
    shown = [points.texels]
    for yaw in (0.0, 40.0):
        pose = pose_matrix(np.array([0.0, yaw, 0.0]), np.array(0.42 * MAP_SIZE), np.array([122.0, 118.0, 0.0]))
        shown.append(project(dense, pose, MAP_SIZE)[:, :2])
    for k, place in enumerate(shown):
        mesh = Delaunay(points.texels).simplices
        for triangle in mesh:
            corners = np.rint((place[triangle] + 0.5) * scale + [k * side, 0]).astype(np.int32)
            cv2.polylines(figure, [corners], True, (205, 212, 222), 1, cv2.LINE_AA)
        for i, (x, y) in enumerate((place + 0.5) * scale + [k * side, 0]):
            colour = (200, 40, 40) if i < 68 else (30, 60, 140)
            cv2.circle(figure, (round(x * 16), round(y * 16)), 16 * (3 if i < 68 else 2), colour, -1, cv2.LINE_AA, 4)
    return figure


if __name__ == "__main__":
    from mtlsearch.faces.pictures.contact_sheet import save_image

    save_image(draw_dense_points(), sys.argv[1])
