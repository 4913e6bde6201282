"""The square crop of a photograph that a pack stores, and the affine map that takes its labels along."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Floats

_FINEST = 4096  # pixels, the side of what is sampled: 50 MB


def crop_affine(crop: Floats, image_size: int, stored_size: int) -> Floats:
    """(2, 3): pixels of the photograph to pixels of the stored image, whose central image_size shows the square `crop`.

    crop (4,): left, top, right, bottom in pixels, the edges of its outermost pixels.
    """
    scale = image_size / (crop[2] - crop[0])
    offset = (stored_size - 1) / 2 - scale * (crop[:2] + crop[2:]) / 2
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])


def warp(image: npt.NDArray[np.uint8], affine: Floats, size: int) -> npt.NDArray[np.uint8]:
    """The photograph under `affine`, (size, size, 3) uint8, black beyond its edges.

    Where it shrinks, it is sampled bilinearly at a whole multiple of the resolution and averaged: a bilinear sample
    alone would skip pixels, and fine texture would turn into noise. Beyond _FINEST pixels it does skip some.
    """
    shrinks = 1 / float(np.hypot(affine[0, 0], affine[1, 0]))
    factor = max(1, math.ceil(min(shrinks, _FINEST // size) - 1e-6))
    fine = affine * factor
    fine[:, 2] += (factor - 1) / 2
    out = cv2.warpAffine(image, fine, (size * factor, size * factor), flags=cv2.INTER_LINEAR)
    if factor > 1:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(out, np.uint8)
