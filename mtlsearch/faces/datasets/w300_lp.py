"""300W-LP: photographs of 300W with faces turned to large poses (Zhu et al., CVPR 2016).

    <root>/AFW/AFW_134212_1_0.jpg, .mat, …   and HELEN, IBUG, LFPW, each with a mirrored copy in AFW_Flip, …

A file's name ends in the face's number and the number of its turned variant; the mirrored copy of X is X in X's folder
with _Flip. All of them show one photograph, which is what `group` names.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.fitted_mat import landmarks_of, read_fit
from mtlsearch.faces.datasets.images import load_image

_NOT_SAMPLES = ("Code", "landmarks")


class W300LP(FaceDataset):
    """300W-LP with the 2D landmarks of its files, whose jaw follows the visible outline."""

    name = "300w_lp"
    published = 122_450
    ground_truth = "68 points in 2D, pt2d of the files; NME over √(w·h) of the landmarks' box"

    def _list(self) -> list[str]:
        return [stem for stem in self._stems(".jpg", ".mat") if stem.split("/")[0] not in _NOT_SAMPLES]

    def group(self, index: int) -> str:
        return photograph(self.names[index])

    def _read(self, index: int) -> FaceSample:
        path = self.root / f"{self.names[index]}.mat"
        fit = read_fit(path, "pt2d")
        assert fit.points is not None
        if fit.points.shape != (68, 2):
            raise InputError(f"{path}: pt2d must be (2, 68), found {fit.points.T.shape}")
        image = load_image(path.with_suffix(".jpg"))
        return face_sample(self.names[index], image, fit.points, fit.angles, fit.parameters)


class W300LP3D(FaceDataset):
    """300W-LP with the 3D landmarks that its parameters give through the model they belong to.

    With 40 of 199 shape and 10 of 29 expression coefficients; on AFLW2000-3D, where the landmarks of all coefficients
    are known, these come back to 0.25–1.5 pixels of 450.
    """

    name = "300w_lp_3d"
    published = 122_450
    ground_truth = "68 points in 3D, from the files' parameters; NME over √(w·h) of the landmarks' box"
    needs_basis = True

    _list = W300LP._list
    group = W300LP.group

    def _read(self, index: int) -> FaceSample:
        assert self.basis is not None
        path = self.root / f"{self.names[index]}.mat"
        fit, image = read_fit(path), load_image(path.with_suffix(".jpg"))
        landmarks = landmarks_of(fit.parameters, self.basis, len(image))
        return face_sample(self.names[index], image, landmarks, fit.angles, fit.parameters)


def photograph(name: str) -> str:
    """The photograph that a file of 300W-LP comes from.

    >>> photograph("AFW_Flip/AFW_134212_1_3")
    'AFW_134212'
    """
    return re.sub(r"_\d+_\d+$", "", PurePosixPath(name).name)
