"""Position maps hold the surface, and the landmarks where they say."""

from __future__ import annotations

import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces.geometry import FLIP_68, pose_matrix, project
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.morphable.position_maps import landmark_texels, position_map


def _face(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = morphable_model()
    shape, expression = rng.standard_normal(40), rng.standard_normal(10)
    pose = pose_matrix(np.array([10.0, 35.0, -8.0]), np.array(90.0), np.array([128.0, 120.0, 0.0]))
    vertices = project(model.vertices(shape, expression), pose, 256)
    return vertices, project(model.landmarks(shape, expression), pose, 256)


@pytest.mark.parametrize("size", [128, 256])
def test_landmarks_are_at_their_texels(size: int) -> None:
    model = morphable_model()
    vertices, landmarks = _face()
    pos = position_map(vertices, model, size)
    assert pos.shape == (size, size, 3) and pos.dtype == np.float32
    u, v = landmark_texels(model.mesh, size).T
    np.testing.assert_allclose(pos[v, u, :2], landmarks[:, :2], atol=1e-3)
    depth = landmarks[:, 2] - pos[v, u, 2]
    np.testing.assert_allclose(depth, depth[0], atol=1e-3)
    assert pos[..., 2].min() == 0 and np.argmax(pos[v, u, 2]) == np.argmax(landmarks[:, 2])


def test_texels_hold_the_surface() -> None:
    """Every texel is a convex combination of one triangle's corners, and neighbours are close."""
    model = morphable_model()
    vertices = model.mean * [100, -100, 100] + 128
    pos = position_map(vertices, model).astype(float)
    assert np.linalg.norm(np.diff(pos, axis=0), axis=-1).max() < 12
    assert np.linalg.norm(np.diff(pos, axis=1), axis=-1).max() < 12
    ids = {tuple(sorted(t)) for t in model.mesh.triangles.tolist()}
    rng = np.random.default_rng(1)
    rows, columns = model.mesh.grid
    corners, weights = model.mesh.at_grid(rng.uniform(0, rows - 1, 500), rng.uniform(0, columns - 1, 500))
    assert all(tuple(sorted(t)) in ids for t in corners.tolist())
    assert weights.min() >= -1e-9
    np.testing.assert_allclose(weights.sum(1), 1)


def test_grid_places_are_continuous_and_exact_at_vertices() -> None:
    mesh = morphable_model().mesh
    rows, columns = mesh.grid
    rng = np.random.default_rng(2)
    row, column = rng.uniform(0, rows - 1, 300), rng.uniform(0, columns - 1, 300)
    corners, weights = mesh.at_grid(row, column)
    back = np.stack(np.divmod(corners, columns), -1)
    np.testing.assert_allclose((back * weights[..., None]).sum(1), np.stack([row, column], -1), atol=1e-9)


def test_a_mirrored_face_has_the_mirrored_map() -> None:
    model = morphable_model()
    texels = landmark_texels(model.mesh)
    # An even map has no middle column: the landmarks of the midline lie at 128, half a texel off.
    middle = np.array(FLIP_68) == np.arange(68)
    assert (texels[middle, 0] == 128).all()
    np.testing.assert_array_equal((texels[list(FLIP_68)] * [-1, 1] + [255, 0])[~middle], texels[~middle])
    vertices, _ = _face(3)
    mirrored = vertices[model.mesh.mirror] * [-1, 1, 1] + [255, 0, 0]
    expected = position_map(vertices, model)[:, ::-1] * np.float32([-1, 1, 1]) + np.float32([255, 0, 0])
    at = np.ones((256, 256), bool)
    at[texels[middle, 1], 127:129] = False
    np.testing.assert_allclose(position_map(mirrored, model)[at], expected[at], atol=1e-3)


def test_errors_say_what_to_do() -> None:
    model = morphable_model()
    with pytest.raises(InputError, match="vertices of shape"):
        position_map(np.zeros((5, 3)), model)
    with pytest.raises(InputError, match="cannot tell"):
        position_map(model.mean, model, 24)
