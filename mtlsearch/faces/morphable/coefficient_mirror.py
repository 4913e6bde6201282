"""What mirroring a face does to its shape and expression coefficients, as one affine map for whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtlsearch.faces.arrays import Floats, Ints
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.morphable.morphable_model import LandmarkBasis


@dataclass(frozen=True)
class CoefficientMirror:
    """c -> matrix·c + offset: shape and expression coefficients (50) of the mirrored face.

    residual: root mean square, over points and modes, of what the mirrored modes' points keep outside the span of the
    modes, as a share of the modes' own; 0 where mirroring is exact.
    """

    matrix: Floats
    offset: Floats
    residual: float


def mirror_of(basis: LandmarkBasis) -> CoefficientMirror:
    """The mirror of a basis by least squares on its 68 landmarks, which batches carry, and which a pack knows."""
    return fit_mirror(basis.mean, basis.shape, basis.expression, np.array(FLIP_68))


def fit_mirror(mean: Floats, shape: Floats, expression: Floats, flip: Ints, shifted: bool = False) -> CoefficientMirror:
    """The mirror of a model by least squares on its points; exact signs where every mode is even or odd.

    mean (V, 3); shape (V, 3, S), expression (V, 3, E); flip (V,): the point that each becomes when x changes its sign;
    shifted: up to a shift of the face, which belongs to its pose.
    """
    modes = np.concatenate([shape, expression], axis=2).reshape(3 * len(mean), -1)
    signs = np.array([-1.0, 1.0, 1.0])
    count = modes.shape[1]
    length = np.linalg.norm(modes, axis=0) + 1e-300
    mirrored = (modes.reshape(-1, 3, count)[flip] * signs[:, None]).reshape(modes.shape)
    left = (mean[flip] * signs - mean).ravel()
    parity = np.sign((modes * mirrored).sum(0))
    exact = np.allclose(mirrored, modes * parity, atol=1e-9 * length.max(initial=0))
    if exact and np.allclose(left, 0, atol=1e-9 * np.abs(mean).max()):
        return CoefficientMirror(np.diag(parity), np.zeros(count), 0.0)
    unit = modes / length  # shape and expression modes differ in scale by five orders
    columns = np.concatenate([unit, np.tile(np.eye(3), (len(mean), 1))], 1) if shifted else unit
    solved = np.linalg.lstsq(columns, np.concatenate([mirrored / length, left[:, None]], 1), rcond=None)[0]
    fit, offset = solved[:, :-1], solved[:count, -1] / length
    residual = np.linalg.norm(columns @ fit - mirrored / length) / np.sqrt(max(count, 1))
    return CoefficientMirror(fit[:count] * length[None, :] / length[:, None], offset, float(residual))
