"""Where the head's axes point, and that they are drawn there."""

from __future__ import annotations

import numpy as np
import pytest

from mtlsearch.faces.geometry import pose_matrix, project
from mtlsearch.faces.pictures.drawing import (
    BLUE,
    GREEN,
    OUTLINES_68,
    PREDICTED,
    RED,
    TRUE,
    axes_in_image,
    draw_axes,
    draw_comparison,
    draw_dense,
    draw_outlines,
)

FACE = np.array([[30.0, 40.0], [90.0, 40.0], [60.0, 100.0], [60.0, 20.0]])  # box 30, 20, 90, 100: centre 60, 60


def _centroid(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    rows, columns = np.nonzero((image == colour).all(-1))
    assert len(rows) > 5
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(
    ("angles", "front"),
    [
        ((0, 0, 0), (0, 0)),
        ((0, 90, 0), (-1, 0)),  # yaw above 0: the face looks to the image's left
        ((0, -90, 0), (1, 0)),
        ((30, 0, 0), (0, -0.5)),  # pitch above 0: up
        ((-30, 0, 0), (0, 0.5)),
        ((0, -30, 40), (0.5, 0)),  # roll turns about the front
    ],
)
def test_the_front_of_a_known_pose(angles: tuple[float, ...], front: tuple[float, ...]) -> None:
    np.testing.assert_allclose(axes_in_image(np.array(angles, float))[0, :2], front, atol=1e-12)


def test_axes_are_the_projections_of_points_in_front_of_below_and_beside_the_head() -> None:
    rng = np.random.default_rng(0)
    points = np.array([[0.0, 0, 0], [0, 0, 1], [0, -1, 0], [1, 0, 0]])
    for angles in rng.uniform(-180, 180, (20, 3)):
        pose = pose_matrix(angles, np.array(3.0), rng.uniform(0, 50, 3))
        seen = project(points, pose, 100)
        np.testing.assert_allclose(axes_in_image(angles), (seen[1:] - seen[0]) / 3, atol=1e-12)


def test_axes_are_drawn_from_the_middle_of_the_face() -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    angles = np.array([35.0, -50.0, 20.0])
    draw_axes(image, FACE, angles)
    for colour, axis in zip((RED, GREEN, BLUE), axes_in_image(angles)):
        # half the longer side, 40 pixels, times the part that lies in the image; the middle of a line is half of that
        np.testing.assert_allclose(_centroid(image, colour), 60 + 20 * axis[:2], atol=3)
    red, green, blue = (_centroid(image, colour) - 60 for colour in (RED, GREEN, BLUE))
    assert red[0] > 10, "it looks to the image's right"
    assert red[1] < -5, "and up"
    assert green[1] > 10
    assert blue[0] > 10


def test_every_landmark_lies_on_an_outline() -> None:
    drawn = [k for first, last, _ in OUTLINES_68 for k in range(first, last + 1)]
    assert sorted(drawn) == list(range(68))


def test_true_and_predicted_landmarks_are_told_apart_and_points_far_outside_do_no_harm() -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    draw_comparison(image, FACE + 6, FACE)
    np.testing.assert_allclose(_centroid(image, PREDICTED) - _centroid(image, TRUE), 6, atol=0.5)
    before = image.copy()
    far = np.full((68, 3), 1e12)
    draw_outlines(image, far + np.random.default_rng(0).uniform(0, 1, (68, 1)))
    draw_dense(image, far)
    np.testing.assert_array_equal(image, before)
