"""The 68 rows of a morphable model as text files, and what mirroring a face does to its coefficients.

    <folder>/u_base.txt      204 numbers: the mean's landmarks, x, y, z of the first point, then of the second, …
    <folder>/w_shp_base.txt  204 rows of 40
    <folder>/w_exp_base.txt  204 rows of 10

This is how 3DDFA's own demonstration keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.head_mesh import Floats
from mtlsearch.faces.morphable_model import EXPRESSION_MODES, SHAPE_MODES, LandmarkBasis

_FILES = {"u_base.txt": (204,), "w_shp_base.txt": (204, SHAPE_MODES), "w_exp_base.txt": (204, EXPRESSION_MODES)}
_MAX_BYTES = 16 << 20


def load_landmark_basis(folder: str | Path) -> LandmarkBasis:
    """The basis in a folder. InputError naming the file that is missing or of another shape."""
    arrays = []
    for name, shape in _FILES.items():
        path = Path(folder) / name
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InputError(f"{path} has more than {_MAX_BYTES >> 20} MB, which no such basis has")
            array = np.loadtxt(path)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read {path} of the 68-point basis: {error}") from error
        if array.shape != shape or not np.isfinite(array).all():
            raise InputError(f"{path} must hold finite numbers of shape {shape}, found {array.shape}")
        arrays.append(array.reshape(68, 3, *shape[1:]))
    return LandmarkBasis(*arrays)


def save_landmark_basis(basis: LandmarkBasis, folder: str | Path) -> None:
    """Write the three files of `load_landmark_basis`, exact to the last bit."""
    for (name, shape), array in zip(_FILES.items(), (basis.mean, basis.shape, basis.expression)):
        np.savetxt(Path(folder) / name, array.reshape(shape), fmt="%.17g")


@dataclass(frozen=True)
class CoefficientMirror:
    """c -> matrix·c + offset: shape and expression coefficients (50) of the mirrored face.

    residual: root mean square, over landmarks and modes, of what the mirrored modes' landmarks keep outside the span of
    the modes, as a share of the modes' own; 0 where mirroring is exact.
    """

    matrix: Floats
    offset: Floats
    residual: float


def mirror_of(basis: LandmarkBasis) -> CoefficientMirror:
    """The mirror of a basis by least squares on its 68 landmarks; exact signs where every mode is even or odd."""
    modes = np.concatenate([basis.shape, basis.expression], axis=2).reshape(204, -1)
    flip, signs = list(FLIP_68), np.array([-1.0, 1.0, 1.0])
    length = np.linalg.norm(modes, axis=0)
    mirrored = (modes.reshape(68, 3, -1)[flip] * signs[:, None]).reshape(modes.shape)
    parity = np.sign((modes * mirrored).sum(0))
    if np.allclose(mirrored, modes * parity, atol=1e-9 * length.max()):
        return CoefficientMirror(np.diag(parity), np.zeros(len(parity)), 0.0)
    unit = modes / length  # shape and expression modes differ in scale by five orders
    fit = np.linalg.lstsq(unit, mirrored / length, rcond=None)[0]
    left = (basis.mean[flip] * signs - basis.mean).ravel()
    offset = np.linalg.lstsq(unit, left, rcond=None)[0] / length
    residual = np.linalg.norm(unit @ fit - mirrored / length) / np.sqrt(len(length))
    return CoefficientMirror(fit * length[None, :] / length[:, None], offset, float(residual))
