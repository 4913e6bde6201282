"""300W-LP as position maps (Feng et al., "Joint 3D Face Reconstruction and Dense Alignment with Position Map Regression
Network", ECCV 2018): a 256×256 crop beside a map of where each point of the face's surface lies in it.

    <root>/…/AFW_134212_1_0.jpg, .npy (256, 256, 3)   x, y in pixels of the crop, z in the same scale from 0
    <root>/uv_kpt_ind.txt                             (2, 68): column and row of each landmark in a map

A .mat file beside a map, in the layout of 300W-LP, gives the angles; without one they are unknown. The dense points of
Basak 2023 are read from the maps: those of the stated rule (`dense_points`), or a user's in `dense_points.txt`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.fitted_mat import read_fit
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.datasets.w300_lp import photograph
from mtlsearch.faces.morphable.dense_points import (
    MAP_SIZE,
    DensePoints,
    after_landmarks,
    dense_points_on,
    load_dense_points,
)
from mtlsearch.faces.packs.safe_files import check_size, load_npy

LANDMARKS_FILE = "uv_kpt_ind.txt"
DENSE_FILE = "dense_points.txt"
_MAX_MAP_BYTES = 64 << 20


class W300LPPositionMaps(FaceDataset):
    """Landmark k of a position map is its value at row v_k, column u_k."""

    name = "300w_lp_position_maps"
    ground_truth = "68 points in 3D, read from the position maps; NME over √(w·h) of the landmarks' box"
    cropped = True

    def _list(self) -> list[str]:
        return self._stems(".jpg", ".npy")

    def group(self, index: int) -> str:
        return photograph(self.names[index])

    def shared_files(self) -> list[Path]:
        return [self.root / LANDMARKS_FILE, self.root / DENSE_FILE]

    @cached_property
    def _at(self) -> npt.NDArray[np.int64]:
        path = self.root / LANDMARKS_FILE
        try:
            at = np.loadtxt(check_size(path, 1 << 20))
        except ValueError as error:  # InputError is one
            raise InputError(f"cannot read {path}, the landmarks' places in the maps: {error}") from error
        if at.shape != (2, 68) or not np.isfinite(at).all():
            raise InputError(f"{path} must hold 2 rows (column, row) of 68 numbers, found {at.shape}")
        return at.round().astype(np.int64)

    @cached_property
    def _dense(self) -> DensePoints:
        landmarks = self._at.T.astype(np.float64)
        if (self.root / DENSE_FILE).exists():
            return after_landmarks(load_dense_points(self.root / DENSE_FILE), landmarks)
        return dense_points_on(landmarks)

    @property
    def dense_flip(self) -> npt.NDArray[np.integer]:  # type: ignore[override]
        return self._dense.flip

    def _read(self, index: int) -> FaceSample:
        path = self.root / f"{self.names[index]}.npy"
        position_map = load_npy(path, _MAX_MAP_BYTES)
        if position_map.ndim != 3 or position_map.shape[2] != 3 or position_map.dtype.kind != "f":
            raise InputError(f"{path} must be (H, W, 3) floats, found {position_map.shape} {position_map.dtype}")
        u, v = self._at
        if not (min(u.min(), v.min()) >= 0 and u.max() < position_map.shape[1] and v.max() < position_map.shape[0]):
            raise InputError(f"{self.root / LANDMARKS_FILE}: places outside the map of {position_map.shape[:2]}")
        if position_map.shape[:2] != (MAP_SIZE, MAP_SIZE):
            raise InputError(f"{path} must be {MAP_SIZE}×{MAP_SIZE}, found {position_map.shape[:2]}")
        landmarks = position_map[v, u].astype(np.float64)
        dense = self._dense.from_map(position_map).astype(np.float64)
        dense[:68] = landmarks
        image = load_image(path.with_suffix(".jpg"))
        mat = path.with_suffix(".mat")
        angles = read_fit(mat).angles if mat.exists() else np.full(3, np.nan)
        height, width = image.shape[:2]
        if height != width:
            raise InputError(f"{path.with_suffix('.jpg')} must be square, found {width}×{height}")
        crop = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
        return face_sample(self.names[index], image, landmarks, angles, crop=crop, dense=dense)
