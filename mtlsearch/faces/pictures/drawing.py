"""Predictions drawn on photographs: the 68 landmarks as the outlines they belong to, dense points, the head's axes."""

from __future__ import annotations

import cv2
import numpy as np

from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.geometry import box_of_landmarks, euler_to_matrix

#: the outlines of the 68 points: first, last (inclusive), closed
OUTLINES_68: tuple[tuple[int, int, bool], ...] = (
    (0, 16, False),  # jaw
    (17, 21, False), (22, 26, False),  # brows
    (27, 30, False), (31, 35, False),  # bridge and base of the nose
    (36, 41, True), (42, 47, True),  # eyes
    (48, 59, True), (60, 67, True),  # outer and inner lips
)  # fmt: skip

RED, GREEN, BLUE = (235, 50, 45), (50, 200, 70), (45, 95, 245)
OUTLINE, POINT, DENSE = (250, 250, 250), (60, 230, 90), (255, 205, 60)
TRUE, PREDICTED = (60, 230, 90), (255, 140, 40)
SHADOW = (20, 20, 20)

_WIDEST = 64  # pixels: a prediction far off must not draw more than OpenCV can
_FINE = 16  # OpenCV takes fixed-point coordinates: 4 bits after the point


def axes_in_image(angles: Floats) -> Floats:
    """Where the head's axes point in the image: (3, 3), a row each for front, down and side: x, y down, and depth
    towards the viewer, unit length.

    angles (3,): degrees, pitch, yaw, roll. The columns of R are the model's axes (x right, y up, z out of the face) in
    y-up coordinates: front is z, down is −y, and side is x, which a frontal face has towards the image's right.

    >>> axes_in_image(np.zeros(3)).round(9).tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    x, y, z = np.asarray(euler_to_matrix(np.asarray(angles, float))).T
    return np.stack([z, -y, x]) * (1.0, -1.0, 1.0) + 0.0  # no negative zeros


def line_width(landmarks: Floats) -> int:
    """Of the lines on a face (K, 2 or 3): 1 for a face of up to 150 pixels, and more for larger ones, to a limit."""
    left, top, right, bottom = box_of_landmarks(landmarks)
    return round(float(np.clip(np.hypot(right - left, bottom - top) / 200, 1, _WIDEST)))


def draw_outlines(image: Bytes, landmarks: Floats) -> None:
    """Draws the landmarks (K, 2 or 3), pixels of the image, into it: outlines through 68 of them, dots on any."""
    width = line_width(landmarks)
    _lines(image, landmarks, SHADOW, width + 2)
    _lines(image, landmarks, OUTLINE, width)
    _dots(image, landmarks, POINT, 1.2 * width)


def draw_comparison(image: Bytes, predicted: Floats, target: Floats) -> None:
    """Draws predicted landmarks in orange over true ones in green, both (K, 2 or 3) pixels of the image, into it."""
    for landmarks, colour in ((target, TRUE), (predicted, PREDICTED)):
        _lines(image, landmarks, colour, 1)
        _dots(image, landmarks, colour, 1.2)


def draw_dense(image: Bytes, points: Floats) -> None:
    """Draws dense points (D, 2 or 3), pixels of the image, into it."""
    _dots(image, points, DENSE, 0.7 * line_width(points))


def draw_axes(image: Bytes, landmarks: Floats, angles: Floats) -> None:
    """Draws the head's axes into the image, from the middle of its landmarks: red to the front of the face, green down,
    blue to the side (the colours of Zhang 2018, Fig. 2).

    landmarks (K, 2 or 3): pixels of the image; angles (3,): degrees, pitch, yaw, roll.
    """
    left, top, right, bottom = box_of_landmarks(landmarks)
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    length = 0.5 * max(right - left, bottom - top)
    width = line_width(landmarks) + 1
    axes = axes_in_image(angles)
    for i in np.argsort(axes[:, 2]):  # what is nearer hides what is farther
        ends = _fixed(np.stack([centre, centre + length * axes[i, :2]]))
        start, end = ((int(x), int(y)) for x, y in ends)
        for colour, thickness in ((SHADOW, width + 2), ((RED, GREEN, BLUE)[i], width)):
            cv2.line(image, start, end, colour, thickness, cv2.LINE_AA, 4)


def _lines(image: Bytes, landmarks: Floats, colour: tuple[int, int, int], width: int) -> None:
    points = _fixed(landmarks)
    for first, last, closed in OUTLINES_68 if len(points) == 68 else ():
        cv2.polylines(image, [points[first : last + 1]], closed, colour, width, cv2.LINE_AA, 4)


def _dots(image: Bytes, points: Floats, colour: tuple[int, int, int], radius: float) -> None:
    for x, y in _fixed(points):
        cv2.circle(image, (int(x), int(y)), int(radius * _FINE), colour, -1, cv2.LINE_AA, 4)


def _fixed(points: Floats) -> np.ndarray:
    """(K, 2 or more) pixels -> (K, 2) int32 in OpenCV's fixed-point pixels, far points brought to a drawable range."""
    return np.clip(np.round(np.asarray(points)[:, :2] * _FINE), -(2**20), 2**20).astype(np.int32)
