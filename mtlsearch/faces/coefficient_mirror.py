"""What mirroring a face does to its shape and expression coefficients, as one affine map for whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.head_mesh import Floats
from mtlsearch.faces.morphable_model import LandmarkBasis


@dataclass(frozen=True)
class CoefficientMirror:
    """c -> matrix·c + offset: shape and expression coefficients (50) of the mirrored face.

    residual: root mean square, over landmarks and modes, of what the mirrored modes' landmarks keep outside the span of
    the modes, as a share of the modes' own; 0 where mirroring is exact. (`published_models` fits single faces over all
    vertices of a model; batches carry landmarks, and so does a pack's basis.)
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
