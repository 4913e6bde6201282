"""AFLW2000-3D: 2,000 photographs of AFLW with fitted 3D landmarks (Zhu et al., "Face Alignment Across Large Poses: A 3D
Solution", CVPR 2016), and the same photographs annotated anew (Bulat & Tzimiropoulos, "How far are we from solving the
2D & 3D Face Alignment problem?", ICCV 2017).

    <root>/image00002.jpg, image00002.mat, …
    <root>/AFLW2000-3D-Reannotated.pts68.npy   (N, 2 or 3, 68), in the order of the photographs' names
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.fitted_mat import read_fit
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.packs.safe_files import load_npy

_REANNOTATED = "AFLW2000-3D-Reannotated.pts68.npy"


class AFLW2000(FaceDataset):
    """AFLW2000-3D as published: `pt3d_68` of each file."""

    name = "aflw2000"
    ground_truth = "68 points, pt3d_68 of the files; NME over √(w·h) of the landmarks' box"
    published = 2000
    default_split = "test"
    pose_limit = 99.0

    def _list(self) -> list[str]:
        return [stem for stem in self._stems(".jpg", ".mat") if "/" not in stem]  # not what lies in Code/

    def _read(self, index: int) -> FaceSample:
        path = self.root / f"{self.names[index]}.mat"
        fit = read_fit(path, "pt3d_68")
        assert fit.points is not None
        if fit.points.shape != (68, 3):
            raise InputError(f"{path}: pt3d_68 must be (3, 68), found {fit.points.T.shape}")
        return face_sample(path.stem, load_image(path.with_suffix(".jpg")), fit.points, fit.angles, fit.parameters)


class AFLW2000Reannotated(FaceDataset):
    """AFLW2000-3D with the landmarks of Bulat & Tzimiropoulos; poses and parameters are the original ones.

    The two ground truths differ by 3.4 % NME, so their names keep them apart.
    """

    name = "aflw2000_reannotated"
    ground_truth = "68 points, annotated anew by Bulat & Tzimiropoulos; NME over √(w·h) of the landmarks' box"
    published = 2000
    default_split = "test"
    pose_limit = 99.0

    _list = AFLW2000._list

    def shared_files(self) -> list[Path]:
        return [self.root / _REANNOTATED]

    @cached_property
    def _landmarks(self) -> Floats:
        path = self.root / _REANNOTATED
        array = load_npy(path, 1 << 28)
        if array.ndim != 3 or array.shape[1] not in (2, 3) or array.shape[2] != 68 or array.dtype.kind not in "fiu":
            raise InputError(f"{path} must hold (N, 2 or 3, 68) numbers, found {array.shape} {array.dtype}")
        if len(array) != len(self):
            raise InputError(f"{path} holds {len(array)} faces, {self.root} has {len(self)} annotation files")
        return array.transpose(0, 2, 1)[..., :2].astype(float) - 1  # its pixels count from 1, like the original's

    def _read(self, index: int) -> FaceSample:
        path = self.root / f"{self.names[index]}.mat"
        landmarks = self._landmarks[index]
        fit = read_fit(path)
        return face_sample(path.stem, load_image(path.with_suffix(".jpg")), landmarks, fit.angles, fit.parameters)
