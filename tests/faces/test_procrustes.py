"""The weighted Procrustes fit: against scipy, through perspective and profile, and on degenerate points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mtlsearch.faces.geometry import euler_to_matrix, matrix_to_euler, pose_matrix, project
from mtlsearch.faces.morphable.dense_labels import dense_basis
from mtlsearch.faces.procrustes import fit_rotation, frontal_template

POINTS = dense_basis(torch.device("cpu")).mean


def seen(angles: torch.Tensor) -> torch.Tensor:
    """The mean face at angles (N, 3), scaled and moved, pixels."""
    count = len(angles)
    poses = pose_matrix(angles, torch.full((count,), 55.0).double(), torch.tensor([[60.0, 70.0, 9.0]] * count).double())
    return project(POINTS.expand(count, -1, -1), poses, 128)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(-180, 180)] * 3))
def test_any_rotation_comes_back(angles: tuple[float, float, float]) -> None:
    turn = torch.tensor([angles], dtype=torch.float64)
    weights = torch.full((len(POINTS),), 1 / len(POINTS), dtype=torch.float64)
    found = fit_rotation(seen(turn), POINTS, weights)
    torch.testing.assert_close(found, euler_to_matrix(turn), atol=1e-9, rtol=0)


def test_noisy_points_fit_as_scipy_fits_them() -> None:
    rng = np.random.default_rng(0)
    angles = torch.from_numpy(rng.uniform(-60, 60, (20, 3)))
    points = seen(angles) + torch.from_numpy(rng.normal(size=(20, len(POINTS), 3))) * 4
    weights = torch.from_numpy(rng.uniform(0.1, 1, len(POINTS)))
    weights = weights / weights.sum()
    found = fit_rotation(points, POINTS, weights)
    upright = points * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    for face, rotation in zip(upright.numpy(), found.numpy()):
        w = weights.numpy()
        ours, theirs = face - w @ face, POINTS.numpy() - w @ POINTS.numpy()
        expected = Rotation.align_vectors(ours, theirs, weights=w)[0].as_matrix()
        np.testing.assert_allclose(rotation, expected, atol=1e-6)


def test_points_beyond_reason_stay_finite_or_say_so() -> None:
    weights = torch.full((len(POINTS),), 1 / len(POINTS))
    template = POINTS.float()
    same = torch.ones(1, len(POINTS), 3)
    torch.testing.assert_close(fit_rotation(same, template, weights)[0], torch.eye(3))
    flat = seen(torch.zeros(1, 3).double()).float() * torch.tensor([1.0, 1.0, 0.0])
    assert torch.linalg.det(fit_rotation(flat, template, weights))[0].item() == pytest.approx(1, abs=1e-5)
    assert fit_rotation(torch.full_like(same, torch.nan), template, weights).isnan().any()
    huge = fit_rotation(seen(torch.tensor([[10.0, 20.0, 30.0]]).double()).float() * 1e30, template, weights)
    torch.testing.assert_close(matrix_to_euler(huge), torch.tensor([[10.0, 20.0, 30.0]]), atol=1e-3, rtol=0)


def test_the_template_is_the_frontal_mean_and_trusts_what_keeps_still() -> None:
    rng = np.random.default_rng(1)
    angles = torch.from_numpy(rng.uniform(-70, 70, (200, 3)))
    faces = seen(angles)
    faces[:, :17] += torch.from_numpy(rng.normal(size=(200, 17, 3))) * 5  # a jaw that moves
    angles[0] = torch.nan  # a face of unknown pose is left out
    template, weights = frontal_template(faces.float(), angles.float())
    centred = POINTS - POINTS.mean(0)
    centred = centred / centred.square().sum(1).mean().sqrt()
    assert (template - centred).norm(dim=1)[17:].max() < 0.02
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights[:17].max() < 0.1 * weights[17:].min()
