"""The annotation files of 300W-LP and AFLW2000-3D: a fitted morphable model and landmarks, in a .mat file.

Pixels in these files count from 1, as MATLAB's do, and so do the y-up coordinates of the pose: a stored y is
h + 1 − y_up. Taking 1 off every stored coordinate gives 0-based pixels and y_up = h − 1 − y, the convention of
`geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.geometry import pose_matrix, project
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, SHAPE_MODES, LandmarkBasis
from mtlsearch.faces.packs.safe_files import load_mat

MAX_MAT_BYTES = 16 << 20
POSE, SHAPE, EXPRESSION = "Pose_Para", "Shape_Para", "Exp_Para"


@dataclass(frozen=True)
class Fit:
    """angles (3,) degrees: pitch, yaw, roll; parameters (62,); points: the landmarks of the variable asked for."""

    angles: Floats
    parameters: Floats
    points: Floats | None


def read_fit(path: Path, points: str | None = None) -> Fit:
    """Pose and shape of a file, and the landmarks (K, 2 or 3) of its variable `points`, in 0-based pixels.

    The first 40 of 199 shape and the first 10 of 29 expression coefficients are kept, as 3DDFA does. Raises InputError
    naming the file and what is wrong with it.
    """
    wanted = [POSE, SHAPE, EXPRESSION, *([points] if points else [])]
    arrays = load_mat(path, MAX_MAT_BYTES, wanted)
    pose = _numbers(path, POSE, arrays, 7)
    angles, translation, scale = np.degrees(pose[:3]), pose[3:6] - [1, 1, 0], pose[6]
    if scale <= 0:
        raise InputError(f"{path}: the scale in {POSE} is {scale}, which shows no face")
    coefficients = [_numbers(path, SHAPE, arrays, SHAPE_MODES), _numbers(path, EXPRESSION, arrays, EXPRESSION_MODES)]
    parameters = np.concatenate([pose_matrix(angles, scale, translation), *coefficients])
    found = None
    if points:
        array = np.asarray(arrays[points])
        if array.ndim != 2 or array.shape[0] not in (2, 3) or array.dtype.kind not in "fiu":
            raise InputError(f"{path}: {points} must be (2 or 3, K) numbers, found {array.shape} {array.dtype}")
        found = array.T.astype(np.float64)
        found[:, :2] -= 1
    return Fit(angles, parameters, found)


def _numbers(path: Path, name: str, arrays: dict[str, Any], count: int) -> Floats:
    array = np.asarray(arrays[name])
    if array.dtype.kind not in "fiu" or array.size < count:
        raise InputError(f"{path}: {name} must hold at least {count} numbers, found {array.shape} {array.dtype}")
    values = array.ravel()[:count].astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {name} holds numbers that are not finite")
    return values


def landmarks_of(parameters: Floats, basis: LandmarkBasis, height: int) -> Floats:
    """(62,) -> (68, 3) pixels of an image of `height` rows: the model's landmarks under the pose."""
    shape, expression = parameters[12 : 12 + SHAPE_MODES], parameters[12 + SHAPE_MODES :]
    return project(basis.mean + basis.shape @ shape + basis.expression @ expression, parameters[:12], height)
