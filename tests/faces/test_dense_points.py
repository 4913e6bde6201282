"""The 520 dense points keep to their rule, and a user's file is checked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from mtlsearch.errors import InputError
from mtlsearch.faces.geometry import FLIP_68, pose_matrix, project
from mtlsearch.faces.morphable.dense_points import (
    COUNT,
    dense_points,
    dense_points_on,
    draw_dense_points,
    load_dense_points,
    outline,
)
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.morphable.position_maps import position_map


def test_the_rule() -> None:
    points, model = dense_points(), morphable_model()
    assert len(points) == COUNT == 520
    assert cKDTree(points.texels).query(points.texels, k=2)[0][:, 1].min() > 1  # distinct, by more than a texel
    np.testing.assert_array_equal(points.flip[points.flip], np.arange(520))
    np.testing.assert_allclose(points.texels[points.flip] * [-1, 1] + [255, 0], points.texels, atol=1e-9)
    v, u = np.nonzero(outline(points.texels[:68]))
    assert len(v) > 0.6 * 256**2
    assert cKDTree(points.texels).query(np.stack([u, v], -1))[0].max() < 12

    at, weights = points.on_mesh(model.mesh)
    on_face = (model.mean[at] * weights[..., None]).sum(1)
    landmarks = model.landmark_basis().mean
    np.testing.assert_allclose(on_face[points.landmarks], landmarks, atol=1e-6)
    assert tuple(points.flip[:68]) == FLIP_68
    assert (on_face[:, 1] > landmarks[17:27, 1].max()).mean() >= 0.15


def test_points_from_the_mesh_and_from_the_map_agree() -> None:
    points, model = dense_points(), morphable_model()
    pose = pose_matrix(np.array([5.0, -20.0, 3.0]), np.array(90.0), np.array([128.0, 120.0, 0.0]))
    vertices = project(model.mean, pose, 256)
    at, weights = points.on_mesh(model.mesh)
    exact = (vertices[at] * weights[..., None]).sum(1)
    sampled = points.from_map(position_map(vertices, model))
    error = np.linalg.norm(sampled[:, :2] - exact[:, :2], axis=1)
    assert error.mean() < 0.15 and error.max() < 1.5  # pixels of 256; the nose's underside is steep


@pytest.mark.skipif("MTLSEARCH_DATA" not in os.environ, reason="needs the real samples")
def test_the_published_index_file_of_the_68_landmarks() -> None:
    points = load_dense_points(Path(os.environ["MTLSEARCH_DATA"]) / "morphable-68" / "uv_kpt_ind.txt", tolerance=8)
    assert len(points) == 68 and tuple(points.flip) == FLIP_68
    dense = dense_points_on(points.texels)  # the rule on the chart of the published maps
    assert len(dense) == COUNT and tuple(dense.flip[:68]) == FLIP_68
    assert cKDTree(dense.texels).query(dense.texels, k=2)[0][:, 1].min() > 1
    v, u = np.nonzero(outline(dense.texels[:68]))
    assert cKDTree(dense.texels).query(np.stack([u, v], -1))[0].max() < 12
    assert (dense.texels[:, 1] < dense.texels[17:27, 1].min()).mean() >= 0.15


def test_a_users_file(tmp_path: Path) -> None:
    texels = np.round(dense_points().texels[:68] * 2) / 2
    np.savetxt(tmp_path / "points.txt", texels.T)
    np.save(tmp_path / "points.npy", texels)
    for name in ("points.txt", "points.npy"):
        loaded = load_dense_points(tmp_path / name)
        np.testing.assert_array_equal(loaded.texels, texels)
        assert tuple(loaded.flip) == FLIP_68 and loaded.landmarks is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [254.0, 2.0], [254.0, 2.0]], "coincide"),
        ([[1.0, 2.0], [300.0, 2.0], [3.0, 4.0]], "lie in"),
        ([[1.0, 2.0], [254.0, 2.0], [60.0, 90.0]], "no mirror image"),
        ([[1.0, 2.0, 3.0]] * 3, "expected"),
        ([[np.nan, 2.0], [254.0, 2.0], [3.0, 4.0]], "lie in"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path: Path, values: list, message: str) -> None:
    np.save(tmp_path / "points.npy", np.array(values))
    with pytest.raises(InputError, match=message):
        load_dense_points(tmp_path / "points.npy")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "points.txt").write_text("a b c")
    with pytest.raises(InputError, match="not a table"):
        load_dense_points(tmp_path / "points.txt")


def test_the_figure_is_drawn() -> None:
    figure = draw_dense_points(scale=1)
    assert figure.shape == (256, 768, 3) and len(np.unique(figure.reshape(-1, 3), axis=0)) > 3
