"""Models that users bring: their layouts, their flips, and what is wrong with a broken one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mtlsearch.errors import InputError
from mtlsearch.faces.geometry import FLIP_68, pose_matrix, project
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.morphable.published_models import (
    PublishedModel,
    load_3ddfa,
    load_bfm,
    load_landmark_model,
    load_whitening,
)
from mtlsearch.faces.packs.safe_files import load_mat

real = pytest.mark.skipif("MTLSEARCH_DATA" not in os.environ, reason="needs the real samples")


def root() -> Path:
    return Path(os.environ["MTLSEARCH_DATA"])


def _ours() -> PublishedModel:
    """Our own landmark basis as somebody's model: it is closed under mirroring."""
    basis = morphable_model().landmark_basis()
    return PublishedModel(basis.mean, basis.shape, basis.expression, np.arange(68, dtype=np.int32))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """3DDFA's layout with 100 vertices of noise."""
    rng = np.random.default_rng(0)
    arrays = {
        "u_shp": rng.standard_normal((300, 1)), "u_exp": rng.standard_normal((300, 1)),
        "w_shp_sim": rng.standard_normal((300, 40)), "w_exp_sim": rng.standard_normal((300, 10)),
        "keypoints_sim": (3 * np.arange(30, 98)[:, None] + [0, 1, 2]).ravel(),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path, arrays


def test_3ddfa_files(files: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, arrays = files
    whitening = {"param_mean": np.arange(62.0), "param_std": np.arange(62.0) + 1}
    (folder / "param_whitening.pkl").write_bytes(pickle.dumps(whitening, 2))
    model = load_3ddfa(folder)
    alpha, beta = np.arange(40.0), np.arange(10.0)
    flat = arrays["u_shp"][:, 0] + arrays["u_exp"][:, 0] + arrays["w_shp_sim"] @ alpha + arrays["w_exp_sim"] @ beta
    np.testing.assert_allclose(model.vertices(alpha, beta), flat.reshape(-1, 3))
    np.testing.assert_allclose(model.landmarks(alpha, beta), flat.reshape(-1, 3)[30:98])
    pose, shape, expression = model.split_parameters(np.ones(62))
    np.testing.assert_array_equal(np.concatenate([pose, shape, expression]), 2 * np.arange(62) + 1)


def test_3ddfa_v2_file(files: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, arrays = files
    v2 = {"u": arrays["u_shp"] + arrays["u_exp"], "w_shp": arrays["w_shp_sim"], "w_exp": arrays["w_exp_sim"]}
    v2 |= {"keypoints": arrays["keypoints_sim"], "tri": np.arange(6).reshape(3, 2)}
    expected = load_3ddfa(folder).vertices(np.ones(40), np.ones(10))
    (folder / "bfm_noneck_v3.pkl").write_bytes(pickle.dumps(v2))
    model = load_3ddfa(folder)
    np.testing.assert_allclose(model.vertices(np.ones(40), np.ones(10)), expected)
    assert model.triangles is not None and model.triangles.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_bfm_mat_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mean, components, deviation = (
        rng.standard_normal((300, 1)),
        rng.standard_normal((300, 99)),
        np.arange(1.0, 100)[:, None],
    )
    arrays = {"shapeMU": mean, "shapePC": components, "shapeEV": deviation, "tl": np.array([[1, 2, 3]])}
    scipy.io.savemat(tmp_path / "01_MorphableModel.mat", arrays, do_compression=True)
    model = load_bfm(tmp_path / "01_MorphableModel.mat")
    alpha = rng.standard_normal(40)
    flat = mean[:, 0] + components[:, :40] @ (deviation[:40, 0] * alpha)
    np.testing.assert_allclose(model.vertices(alpha, []), flat.reshape(-1, 3))
    assert model.triangles is not None and model.triangles.tolist() == [[0, 1, 2]]
    with pytest.raises(InputError, match="no keypoints"):
        model.landmarks(alpha, [])

    keypoints = np.arange(1, 69)[None]
    scipy.io.savemat(tmp_path / "Model_Shape.mat", {"mu_shape": mean, "w": components, "keypoints": keypoints})
    scipy.io.savemat(tmp_path / "Model_Expression.mat", {"mu_exp": mean, "w_exp": components[:, :29]})
    model = load_bfm(tmp_path / "Model_Shape.mat", tmp_path / "Model_Expression.mat")
    flat = 2 * mean[:, 0] + components[:, :40] @ alpha + components[:, :10] @ np.ones(10)
    np.testing.assert_allclose(model.landmarks(alpha, np.ones(29)), flat.reshape(-1, 3)[:68])
    with pytest.raises(InputError, match="neither shapeMU"):
        load_bfm(tmp_path / "Model_Expression.mat")


def test_flip_of_a_basis_that_is_closed_under_mirroring_is_exact() -> None:
    model, ours = _ours(), morphable_model()
    rng = np.random.default_rng(2)
    shape, expression = rng.standard_normal(40), rng.standard_normal(10)
    fit = model.mirrored(shape, expression)
    assert fit.residual < 1e-9
    mirrored = ours.landmarks(shape * ours.shape_parity, expression * ours.expression_parity)
    fitted = model.landmarks(fit.shape, fit.expression)
    np.testing.assert_allclose(fitted - fitted.mean(0), mirrored - mirrored.mean(0), atol=1e-8)


def test_whitening_is_read_alike_wherever_it_is(tmp_path: Path) -> None:
    mean, std = np.arange(62.0), np.arange(62.0) + 1
    assert load_whitening(tmp_path, 62) is None
    np.savetxt(tmp_path / "param_mean.txt", mean)
    assert load_whitening(tmp_path, 62) is None
    np.save(tmp_path / "param_std.npy", std)
    pickled = tmp_path / "elsewhere.pkl"
    pickled.write_bytes(pickle.dumps({"mean": mean, "std": std}))
    for path in (tmp_path, pickled):
        found = load_whitening(path, 62)
        assert found is not None
        np.testing.assert_array_equal(found, [mean, std])
        with pytest.raises(InputError, match="must be 50 means"):
            load_whitening(path, 50)
    pickled.write_bytes(pickle.dumps({"mean": mean}))
    with pytest.raises(InputError, match=r"elsewhere\.pkl"):
        load_whitening(pickled, 62)


def test_the_residual_is_the_distance_that_is_left() -> None:
    rng = np.random.default_rng(3)
    mean = rng.standard_normal((68, 3))
    model = PublishedModel(mean, rng.standard_normal((68, 3, 4)), rng.standard_normal((68, 3, 2)))
    fit = model.mirrored(rng.standard_normal(4), rng.standard_normal(2))
    assert fit.residual > 0.1 and fit.relative > 0.01
    # No other coefficients come nearer.
    again = model.mirrored(np.zeros(4), np.zeros(2))
    target = mean[list(FLIP_68)] * [-1, 1, 1]
    for k in range(6):
        step = np.eye(6)[k] * 1e-3
        moved = model.vertices(again.shape + step[:4], again.expression + step[4:])
        left = target - moved
        assert np.sqrt(((left - left.mean(0)) ** 2).sum(1).mean()) >= again.residual - 1e-12


@real
def test_real_landmarks_come_back_through_the_68_point_basis() -> None:
    """To a mean of at most 2 px of 450. (300W-LP's pt2d are other points: on the contour that the photograph shows.)"""
    model = load_landmark_model(root() / "morphable-68")
    files = sorted(root().glob("aflw2000-3d-sample/*.mat"))
    assert len(files) == 8
    for file in files:
        found = load_mat(file)
        pitch, yaw, roll, tx, ty, tz, scale = found["Pose_Para"].ravel()
        pose = pose_matrix(np.degrees([pitch, yaw, roll]), np.array(scale), np.array([tx, ty, tz]))
        # y = h + 1 − y_up: two rows more than `project`, whose pixels count from 0.
        points = project(model.landmarks(found["Shape_Para"], found["Exp_Para"]), pose, 452)
        assert np.linalg.norm(points[:, :2] - found["pt3d_68"][:2].T, axis=1).mean() < 2, file.name


@real
def test_the_real_basis_flips_with_a_residual() -> None:
    model = load_landmark_model(root() / "morphable-68")
    assert model.parameter_std is not None
    rng = np.random.default_rng(4)
    shape, expression = (rng.standard_normal(n) * model.parameter_std[a : a + n] for n, a in ((40, 12), (10, 52)))
    fit = model.mirrored(shape, expression)
    assert 0 < fit.relative < 0.5
    back = model.mirrored(fit.shape, fit.expression)
    first, twice = model.landmarks(shape, expression), model.landmarks(back.shape, back.expression)
    difference = (first - first.mean(0)) - (twice - twice.mean(0))
    assert np.sqrt((difference**2).sum(1).mean()) < 2.5 * fit.residual


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("u_shp", np.ones((299, 1)), "u_shp must hold 3 finite numbers"),
        ("w_shp_sim", np.ones((30, 40)), "w_shp must hold 300 rows"),
        ("w_exp_sim", np.full((300, 10), np.nan), "w_exp must hold 300 rows of finite"),
        ("keypoints_sim", np.arange(5), "keypoints must be 68"),
    ],
)
def test_broken_files_are_named(
    files: tuple[Path, dict[str, np.ndarray]], name: str, array: np.ndarray, message: str
) -> None:
    folder, _ = files
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        load_3ddfa(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="u_shp"):
        load_3ddfa(tmp_path)
    with pytest.raises(InputError, match="w_exp_base"):
        load_landmark_model(tmp_path)
