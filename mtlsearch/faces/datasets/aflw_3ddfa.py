"""AFLW as 3DDFA's benchmark prepared it: 21,080 faces as crops, with 21 points, 68 fitted points and the yaw.

    <root>/AFLW_GT_crop.list           file names, one a line
    <root>/AFLW_GT_crop/…              120×120 crops
    <root>/AFLW_GT_crop_roi_box.npy    (N, 4) left, top, right, bottom of each crop in its photograph
    <root>/AFLW_GT_crop_yaws.npy       (N,) degrees
    <root>/AFLW_GT_pts21.npy           (N, 2, 21) pixels of the photograph, -1 where not visible
    <root>/AFLW_GT_pts68.npy           (N, 2 or 3, 68) pixels of the photograph

The box of the 68 points normalises the NME; 68 predicted points become 21 as in `metrics.to_21_points`. 805 of the
21,080 yaws lie beyond 90°; pitch and roll are not given.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.datasets.three_ddfa import read_list
from mtlsearch.faces.geometry import box_of_landmarks, transform_points
from mtlsearch.faces.packs.safe_files import load_npy

CROPS = "AFLW_GT_crop"
_SHAPES: dict[str, tuple[int, ...]] = {"crop_roi_box": (4,), "crop_yaws": (), "pts21": (2, 21), "pts68": (-1, 68)}


class AFLW3DDFA(FaceDataset):
    """The 21-point arrays of 3DDFA's benchmark, for testing."""

    name = "aflw_3ddfa"
    ground_truth = "21 points, visible ones only; NME over √(w·h) of the box of 68 fitted points (3DDFA's benchmark)"
    published = 21_080
    points = 21
    cropped = True
    default_split = "test"

    def _list(self) -> list[str]:
        return read_list(self.root / f"{CROPS}.list")

    def files(self, index: int) -> list[Path]:
        return [self.root / CROPS / self.names[index]]

    def shared_files(self) -> list[Path]:
        return [self.root / f"{CROPS}.list", *(self.root / f"AFLW_GT_{name}.npy" for name in _SHAPES)]

    @cached_property
    def _arrays(self) -> dict[str, Floats]:
        return {name: self._load(name, shape) for name, shape in _SHAPES.items()}

    def _load(self, name: str, shape: tuple[int, ...]) -> Floats:
        path = self.root / f"AFLW_GT_{name}.npy"
        array: npt.NDArray[np.generic] = load_npy(path, 1 << 28)
        fits = array.ndim == len(shape) + 1 and all(n in (-1, m) for n, m in zip(shape, array.shape[1:]))
        if not fits or array.dtype.kind not in "fiu":
            raise InputError(f"{path} must be numbers of shape (N, {', '.join(map(str, shape))}), found {array.shape}")
        if len(array) != len(self):
            raise InputError(f"{path} holds {len(array)} faces, {CROPS}.list names {len(self)}")
        return array.astype(np.float64)

    def _read(self, index: int) -> FaceSample:
        arrays, name = self._arrays, self.names[index]
        image = load_image(self.root / CROPS / name)
        height, width = image.shape[:2]
        left, top, right, bottom = arrays["crop_roi_box"][index]
        if right <= left or bottom <= top:
            raise InputError(f"{self.root / 'AFLW_GT_crop_roi_box.npy'}: row {index} is an empty box")
        across, down = width / (right - left), height / (bottom - top)
        # what 3DDFA's benchmark does with a prediction, the other way round; its pixels count from 1
        from_photograph = np.array([[across, 0, -left * across - 1], [0, down, -top * down - 1]])
        points = arrays["pts21"][index].T
        visible = (points != -1).all(1) & np.isfinite(points).all(1)
        points = transform_points(np.where(visible[:, None], points, 0.0), from_photograph)
        box = box_of_landmarks(transform_points(arrays["pts68"][index].T[:, :2], from_photograph))
        back = np.array([[1 / across, 0, left + 1 / across], [0, 1 / down, top + 1 / down]])
        return face_sample(
            name,
            image,
            points,
            np.array([np.nan, arrays["crop_yaws"][index], np.nan]),
            visible=visible,
            box=box,
            crop=np.array([-0.5, -0.5, width - 0.5, height - 0.5]),
            original=back,
        )
