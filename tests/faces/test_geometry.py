"""Geometry: inverses, finite gradients for any numbers, mirror images and crops."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtlsearch.faces import geometry as g

anything = hnp.arrays(np.float64, (3, 3), elements=st.floats(-1e6, 1e6, allow_subnormal=True))
angle = st.floats(-179.9, 179.9)
half = st.floats(-89.99, 89.99)


def factors(p: float, y: float, r: float) -> np.ndarray:
    """The three factors multiplied out, straight from the module's definition."""
    (cp, sp), (cy, sy), (cr, sr) = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (p, y, r)]
    rx = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    ry = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rz = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return rx @ ry @ rz


@given(angle, angle, angle)
def test_matrix_is_the_product_of_its_factors(p: float, y: float, r: float) -> None:
    np.testing.assert_allclose(g.euler_to_matrix(np.array([p, y, r])), factors(p, y, r), atol=1e-14)


@given(angle, half, angle)
def test_angles_round_trip(p: float, y: float, r: float) -> None:
    given_angles = np.array([p, y, r])
    back = g.matrix_to_euler(g.euler_to_matrix(given_angles))
    np.testing.assert_allclose(g.wrap_degrees(back - given_angles), 0, atol=1e-9)
    if abs(y) < 80:  # the formulas of faces.md agree where they are well conditioned
        m = g.euler_to_matrix(given_angles)
        assert abs(float(g.wrap_degrees(np.degrees(np.arctan2(m[0, 1], m[0, 0])) - back[2]))) < 1e-9


@given(angle, st.one_of(angle, st.sampled_from([90.0, -90.0, 90 - 1e-7, 90 + 1e-9])), angle, angle)
def test_matrix_round_trips_always(p: float, y: float, r: float, turn: float) -> None:
    for matrix in (factors(p, y, r), factors(turn, 0, 0) @ factors(p, y, r) @ factors(0, 0, turn)):
        np.testing.assert_allclose(g.euler_to_matrix(g.matrix_to_euler(matrix)), matrix, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kind_and_dtype_are_kept(dtype: type) -> None:
    angles = np.array([[10, 20, 30], [-5, 80, 3]], dtype)
    numpy_matrix, torch_matrix = g.euler_to_matrix(angles), g.euler_to_matrix(torch.from_numpy(angles))
    assert numpy_matrix.dtype == dtype and isinstance(torch_matrix, torch.Tensor)
    np.testing.assert_allclose(torch_matrix.numpy(), numpy_matrix, atol=1e-6)
    back = g.matrix_to_euler(torch_matrix)
    assert g.matrix_to_euler(numpy_matrix).dtype == dtype and back.dtype == torch_matrix.dtype
    np.testing.assert_allclose(back.numpy(), angles, atol=2e-4)


EDGES = [
    np.zeros((3, 3)), np.ones((3, 3)), np.eye(3) * 1e-30, np.diag([0.0, 1, 0]), np.diag([1.0, 0, 0]),
    np.array([[0, 1.0, 0], [0, 1, 0], [0, 1, 0]]), np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    np.full((3, 3), 1e30), np.array([[1.0, 2, 3], [2, 4, 6.0000001], [0, 0, 0]]), np.full((3, 3), 1e-200),
]  # fmt: skip


def check_orthonormal(numbers: np.ndarray, dtype: torch.dtype) -> None:
    matrix = torch.tensor(numbers, dtype=dtype, requires_grad=True)
    rotation, scale = g.orthonormalize(matrix)
    accuracy = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=dtype), atol=accuracy, rtol=0)
    assert float(torch.linalg.det(rotation.detach())) == pytest.approx(1, abs=1e-4)
    angles = g.matrix_to_euler(rotation)
    assert torch.isfinite(angles).all() and torch.isfinite(scale)
    (angles.sum() + scale).backward()
    assert matrix.grad is not None and torch.isfinite(matrix.grad).all()
    plain, plain_scale = g.orthonormalize(matrix.detach().numpy())
    np.testing.assert_allclose(plain, rotation.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(plain_scale, scale.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", range(len(EDGES)))
def test_orthonormalize_at_the_edges(case: int, dtype: torch.dtype) -> None:
    check_orthonormal(EDGES[case], dtype)


@given(anything)
def test_orthonormalize_anything(numbers: np.ndarray) -> None:
    check_orthonormal(numbers, torch.float64)


@given(angle, half, angle, st.floats(1e-3, 1e3))
def test_orthonormalize_of_a_scaled_rotation(p: float, y: float, r: float, scale: float) -> None:
    rotation, found = g.orthonormalize(factors(p, y, r) * scale)
    np.testing.assert_allclose(rotation, factors(p, y, r), atol=1e-12)
    assert found == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("numbers", EDGES)
def test_gradient_of_the_angles_is_finite_for_any_matrix(numbers: np.ndarray) -> None:
    matrix = torch.tensor(np.clip(numbers, -1e3, 1e3), requires_grad=True)
    g.matrix_to_euler(matrix).sum().backward()
    assert matrix.grad is not None and torch.isfinite(matrix.grad).all()


def test_gradient_at_a_yaw_of_90() -> None:
    angles = torch.tensor([[10.0, 90.0, 5.0], [0.0, -90.0, 0.0], [3.0, 89.9, 1.0]], requires_grad=True)
    g.matrix_to_euler(g.euler_to_matrix(angles)).sum().backward()
    assert angles.grad is not None and torch.isfinite(angles.grad).all()


def test_gradient_is_right_in_the_interior() -> None:
    angles = torch.tensor([[10.0, 40.0, -25.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(g.euler_to_matrix, angles)
    matrix = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: g.orthonormalize(m), matrix)


@given(angle, angle, angle, angle)
def test_rotated_angles_give_the_rotated_matrix(p: float, y: float, r: float, turn: float) -> None:
    turned = g.rotate_angles(np.array([p, y, r]), np.array(turn))
    np.testing.assert_allclose(g.euler_to_matrix(turned), factors(0, 0, turn) @ factors(p, y, r), atol=1e-10)


def test_small_turns_stay_on_the_branch_beyond_90() -> None:
    angles = np.array([5.0, 110.0, -8.0])
    assert np.abs(g.rotate_angles(angles, np.array(3.0)) - angles).max() < 10
    np.testing.assert_array_equal(g.rotate_angles(angles, np.array(0.0)), angles)


def test_clockwise_is_what_the_eye_calls_clockwise() -> None:
    # The tip of a vector that points up moves to the right; in pixels y is down.
    affine = np.array([[math.cos(0.3), -math.sin(0.3), 0], [math.sin(0.3), math.cos(0.3), 0]])
    up = g.transform_points(np.array([[0.0, -1.0]]), affine)
    assert up[0, 0] > 0.2
    pose = g.pose_matrix(np.array([0.0, 0, 0]), np.array(1.0), np.zeros(3))
    rotation, _ = g.orthonormalize(g.rotate_pose(pose, affine, 1, 1).reshape(3, 4)[:, :3])
    np.testing.assert_allclose(g.matrix_to_euler(rotation), [0, 0, math.degrees(0.3)], atol=1e-9)


@given(angle, half, angle, angle, st.floats(0.2, 5), st.floats(-50, 50), st.integers(8, 300), st.integers(8, 300))
@settings(max_examples=50)
def test_pose_follows_the_image(p, y, r, turn, k, shift, height, new_height) -> None:  # type: ignore[no-untyped-def]
    points = np.random.default_rng(0).normal(size=(68, 3))
    pose = g.pose_matrix(np.array([p, y, r]), np.array(20.0), np.array([30.0, 25.0, 2.0]))
    c, s = k * math.cos(math.radians(turn)), k * math.sin(math.radians(turn))
    affine = np.array([[c, -s, shift], [s, c, 3.0]])
    expected = g.transform_points(g.project(points, pose, height), affine)
    moved = g.rotate_pose(pose, affine, height, new_height)
    np.testing.assert_allclose(g.project(points, moved, new_height), expected, atol=1e-8)
    rotation, scale = g.orthonormalize(moved.reshape(3, 4)[:, :3])
    assert scale == pytest.approx(20 * k)
    np.testing.assert_allclose(
        rotation, g.euler_to_matrix(g.rotate_angles(np.array([p, y, r]), np.array(turn))), atol=1e-9
    )


@given(angle, angle, angle)
def test_mirrored_pose_shows_the_mirrored_model(p: float, y: float, r: float) -> None:
    points = np.random.default_rng(1).normal(size=(68, 3))
    angles = np.array([p, y, r])
    pose = g.pose_matrix(angles, np.array(11.0), np.array([30.0, 25.0, 2.0]))
    mirrored_model = points[list(g.FLIP_68)] * [-1, 1, 1]
    seen = g.project(mirrored_model, g.mirror_pose(pose, 64), 48)
    np.testing.assert_allclose(seen, g.mirror_landmarks(g.project(points, pose, 48), 64), atol=1e-10)
    np.testing.assert_allclose(g.mirror_pose(g.mirror_pose(pose, 64), 64), pose, atol=1e-12)
    rotation, _ = g.orthonormalize(g.mirror_pose(pose, 64).reshape(3, 4)[:, :3])
    np.testing.assert_allclose(rotation, g.euler_to_matrix(g.mirror_angles(angles)), atol=1e-10)


def test_flip_is_an_involution_of_the_68() -> None:
    flip = np.array(g.FLIP_68)
    assert sorted(flip.tolist()) == list(range(68))
    np.testing.assert_array_equal(flip[flip], np.arange(68))
    assert np.flatnonzero(flip == np.arange(68)).tolist() == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_boxes_and_crops() -> None:
    points = np.array([[10.0, 20.0, 5.0], [30.0, 30.0, -7.0]])
    np.testing.assert_allclose(g.box_of_landmarks(points), [10, 20, 30, 30])
    crop = g.crop_from_landmarks(torch.from_numpy(points))
    side = 20 * math.sqrt(2)
    np.testing.assert_allclose(crop.numpy(), [20 - side / 2, 25 - side / 2, 20 + side / 2, 25 + side / 2])


@given(*[st.floats(-500, 500)] * 2, *[st.floats(1, 500)] * 2)
@settings(deadline=None)
def test_the_crop_of_a_detectors_box(left: float, top: float, width: float, height: float) -> None:
    crop = g.crop_from_box(np.array([left, top, left + width, top + height]))
    size = (width + height) / 2
    side, below = 1.58 * size, 0.14 * size
    x, y = left + width / 2, top + height / 2 + below
    np.testing.assert_allclose(crop, [x - side / 2, y - side / 2, x + side / 2, y + side / 2], atol=1e-9)


@pytest.mark.parametrize("points", g.FLIPS)
def test_every_layouts_flip_is_an_involution(points: int) -> None:
    flip = np.array(g.FLIPS[points])
    np.testing.assert_array_equal(flip[flip], np.arange(points))
    landmarks = np.random.default_rng(0).normal(size=(2, points, 3)) * 50
    twice = g.mirror_landmarks(g.mirror_landmarks(landmarks, 90, g.FLIPS[points]), 90, g.FLIPS[points])
    np.testing.assert_allclose(twice, landmarks, atol=1e-12)


@given(hnp.arrays(np.float64, (4,), elements=st.floats(-1e5, 1e5)))
def test_wrap(angles: np.ndarray) -> None:
    wrapped = g.wrap_degrees(angles)
    assert ((wrapped >= -180) & (wrapped < 180)).all()
    np.testing.assert_allclose(np.cos(np.radians(wrapped)), np.cos(np.radians(angles)), atol=1e-9)


def test_importing_geometry_needs_only_numpy_and_torch() -> None:
    code = (
        "import sys, mtlsearch.faces.geometry; print([m for m in ('cv2', 'numba', 'ray', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
