"""The protocol's other figures against their definitions, and their accumulation over batches and workers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtlsearch.faces import metrics
from mtlsearch.faces.evaluation.accumulator import FaceScores, GroundTruth
from mtlsearch.faces.geometry import FLIP_21, FLIP_68, euler_to_matrix

angles = hnp.arrays(np.float64, (4, 3), elements=st.floats(-180, 180))
errors = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 50))


def test_nme_counts_visible_points_over_a_given_size() -> None:
    target = np.zeros((2, 21, 2))
    predicted = np.zeros((2, 21, 2))
    predicted[0, :3] = [3.0, 4.0]
    visible = np.zeros((2, 21), bool)
    visible[:, 2:5] = True
    found = metrics.nme(predicted, target, visible=visible, size=np.array([50.0, 10.0]))
    assert found == pytest.approx([100 * 5 / 3 / 50, 0.0])
    assert np.isnan(metrics.nme(predicted, target, visible=np.zeros((2, 21), bool), size=np.ones(2))).all()
    with pytest.raises(ValueError, match="give the size"):
        metrics.nme(predicted, target, visible=visible)


def test_hidden_points_may_hold_anything() -> None:
    target, predicted = np.random.default_rng(0).normal(size=(2, 3, 21, 2))
    visible = np.arange(21) % 2 == np.zeros((3, 1))
    first = metrics.nme(predicted, target, visible=visible, size=np.ones(3))
    target[~visible] = np.nan
    assert metrics.nme(predicted, target, visible=visible, size=np.ones(3)) == pytest.approx(first)


def test_nme_in_3d_adds_depth() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(3, 68, 3)) * 40
    predicted = target + rng.normal(size=target.shape)
    sizes = np.sqrt(np.ptp(target[..., 0], axis=1) * np.ptp(target[..., 1], axis=1))
    by_hand = 100 * np.linalg.norm(predicted - target, axis=2).mean(1) / sizes
    assert metrics.nme(predicted, target, dimensions=3) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="3"):
        metrics.nme(predicted[..., :2], target, dimensions=3)
    level = metrics.level_depth(predicted + np.array([0, 0, 7.5]))
    np.testing.assert_allclose(level, metrics.level_depth(predicted), atol=1e-9)
    np.testing.assert_array_equal(level[..., :2], predicted[..., :2])


def test_21_points_of_68() -> None:
    points = np.arange(68 * 2, dtype=float).reshape(1, 68, 2)
    found = metrics.to_21_points(points)[0]
    assert found[20].tolist() == points[0, 8].tolist(), "chin"
    assert found[14].tolist() == points[0, 30].tolist(), "nose tip"
    assert found[7].tolist() == points[0, 36:42].mean(0).tolist(), "centre of an eye"
    assert found[18].tolist() == points[0, 60:68].mean(0).tolist(), "centre of the mouth"
    with pytest.raises(ValueError, match="68"):
        metrics.to_21_points(points[:, :21])


def test_the_two_layouts_mirror_alike() -> None:
    """Twenty-one of the mirrored 68 are the mirrored 21."""
    points = np.random.default_rng(0).normal(size=(5, 68, 2))
    of_mirrored = metrics.to_21_points(points[:, list(FLIP_68)])
    np.testing.assert_allclose(of_mirrored, metrics.to_21_points(points)[:, list(FLIP_21)], atol=1e-12)
    assert [FLIP_21[k] for k in FLIP_21] == list(range(21))


@given(errors, st.floats(0.1, 20))
@settings(deadline=None)
def test_the_area_is_the_integral_of_the_curve(nme: np.ndarray, threshold: float) -> None:
    steps = np.linspace(0, threshold, 4001)
    curve = metrics.cumulative_errors(nme, steps)
    assert (np.diff(curve) >= 0).all() and ((curve >= 0) & (curve <= 1)).all()
    integral = 100 * np.trapezoid(curve, steps) / threshold if hasattr(np, "trapezoid") else None
    if integral is not None:
        assert metrics.area_under_ced(nme, threshold) == pytest.approx(integral, abs=0.1)
    assert metrics.failure_rate(nme, threshold) == pytest.approx(100 * (1 - curve[-1]))


def test_the_curve_by_hand() -> None:
    nme = np.array([1.0, 2.0, 4.0, 20.0])
    assert metrics.cumulative_errors(nme, np.array([0.5, 2.0, 10.0])).tolist() == [0, 0.5, 0.75]
    assert metrics.area_under_ced(nme, 10.0) == pytest.approx(100 * (0.9 + 0.8 + 0.6 + 0) / 4)
    assert metrics.failure_rate(nme, 4.0) == 25
    assert metrics.failure_rate(np.array([1.0, math.nan]), 4.0) == 50
    with pytest.raises(ValueError, match="above 0"):
        metrics.area_under_ced(nme, 0.0)


@given(hnp.arrays(np.float64, st.integers(3, 200), elements=st.floats(-120, 120)), st.integers(0, 100))
@settings(deadline=None)
def test_the_balanced_subset(yaw: np.ndarray, seed: int) -> None:
    chosen = metrics.balanced_subset(yaw, seed)
    assert len(set(chosen.tolist())) == len(chosen) and (np.diff(chosen) > 0).all()
    size = np.abs(yaw)
    counts = [int(((size > low) & (size <= high)).sum()) for low, high in ((-1, 30), (30, 60), (60, 999))]
    picked = np.abs(yaw[chosen])
    for low, high in ((-1, 30), (30, 60), (60, 999)):
        assert ((picked > low) & (picked <= high)).sum() == min(counts)
    np.testing.assert_array_equal(chosen, metrics.balanced_subset(yaw, seed))


def test_the_balanced_subset_depends_on_its_seed() -> None:
    yaw = np.linspace(-90, 90, 500)
    assert not np.array_equal(metrics.balanced_subset(yaw, 0), metrics.balanced_subset(yaw, 1))


@given(angles, angles)
@settings(deadline=None)
def test_geodesic_error_is_the_angle_between_the_matrices(one: np.ndarray, other: np.ndarray) -> None:
    product = np.swapaxes(euler_to_matrix(one), -1, -2) @ euler_to_matrix(other)
    cosine = np.clip((np.trace(product, axis1=-2, axis2=-1) - 1) / 2, -1, 1)
    np.testing.assert_allclose(metrics.geodesic_error(one, other), np.degrees(np.arccos(cosine)), atol=1e-5)
    np.testing.assert_allclose(metrics.geodesic_error(one, one), 0, atol=1e-9)


def test_geodesic_error_of_small_turns_is_exact() -> None:
    still, turned = np.zeros((1, 3)), np.array([[0.0, 1e-6, 0.0]])
    assert metrics.geodesic_error(still, turned)[0] == pytest.approx(1e-6, rel=1e-6)
    assert metrics.geodesic_error(still, np.array([[0.0, 0.0, 180.0]]))[0] == pytest.approx(180)


def test_which_poses_count() -> None:
    turned = np.array([[0.0, 99.0, 0], [0, 99.1, 0], [0, 0, -100], [np.nan, 0, 0]])
    assert metrics.within_pose_limit(turned, 99.0).tolist() == [True, False, False, False]
    assert metrics.within_pose_limit(turned, None).tolist() == [True, True, True, False]
    each = metrics.angles_that_count(turned, 99.0)
    assert each.tolist() == [[True] * 3, [False] * 3, [False] * 3, [False, True, True]]
    assert metrics.angles_that_count(turned, None)[:3].all()


def test_the_edges_of_the_bins() -> None:
    yaw = np.array([0, -30, 30.001, 60, -60.001, 119, np.nan])
    assert metrics.yaw_bin(yaw).tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert metrics.yaw_bin(torch.from_numpy(yaw).float()).tolist() == [0, 0, 1, 1, 2, 2, -1]
    # unknown yaw belongs to no bin, but to the whole set
    figures = metrics.nme_by_yaw(np.arange(7.0), yaw)
    assert (figures.nme_0_30, figures.nme_30_60, figures.nme_60_90, figures.whole_set) == (0.5, 2.5, 4.5, 3.0)
    assert 6 not in metrics.balanced_subset(yaw)


def test_whole_numbers_are_numbers() -> None:
    points = np.arange(2 * 68 * 3).reshape(2, 68, 3) ** 2 % 97
    assert metrics.nme(points, points + 1) == pytest.approx(metrics.nme(points * 1.0, points + 1.0))
    assert metrics.to_21_points(points).dtype == np.float64
    assert metrics.pose_error(np.array([[350, 0, 1]]), np.array([[0, 0, 0]])).tolist() == [[10.0, 0.0, 1.0]]
    assert metrics.nme_by_yaw(np.array([1, 2, 4]), np.array([0, 45, 80])).mean_of_bins == pytest.approx(7 / 3)


Batch = tuple[torch.Tensor, torch.Tensor, GroundTruth]
"""Predicted landmarks and angles, and what they are compared with"""


def batches(count: int, points: int = 68) -> Batch:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(count, points, 3, generator=generator) * 40
    predicted = torch.randn(count, 68, 3, generator=generator) * 4
    predicted = predicted + (target if points == 68 else 0)
    pose = torch.rand(count, 3, generator=generator) * 180 - 90
    turned = pose + torch.randn(count, 3, generator=generator)
    visible = torch.rand(count, points, generator=generator) > 0.3 if points == 21 else None
    size = torch.rand(count, generator=generator) * 50 + 50 if points == 21 else None
    return predicted, turned, GroundTruth(target[..., :2] if points == 21 else target, pose, visible, size)


def part(batch: Batch, rows: slice) -> Batch:
    landmarks, turned, truth = batch
    optional = [None if value is None else value[rows] for value in (truth.visible, truth.size)]
    return (
        landmarks[rows],
        turned[rows],
        GroundTruth(truth.landmarks[rows], truth.angles[rows], *optional),
    )


@given(st.lists(st.integers(0, 59), max_size=5), st.sampled_from([68, 21]))
@settings(max_examples=20, deadline=None)
def test_batches_do_not_matter(cuts: list[int], points: int) -> None:
    everything = batches(60, points)
    whole, split = FaceScores(99.0), FaceScores(99.0)
    whole.update(*everything)
    edges = [0, *sorted(cuts), 60]
    for start, stop in pairwise(edges):
        split.update(*part(everything, slice(start, stop)))
    assert len(split) == 60
    expected, found = whole.compute(), split.compute()
    assert tuple(found) == FaceScores.names
    for name in FaceScores.names:
        assert found[name] == pytest.approx(expected[name], rel=1e-6, nan_ok=True), name
    assert math.isnan(expected["nme_3d"]) == (points == 21)


def test_scores_are_those_of_the_functions() -> None:
    landmarks, angles, truth = batches(60)
    scores = FaceScores()
    scores.update(landmarks, angles, truth)
    found = scores.compute()
    nme = metrics.nme(landmarks, truth.landmarks)
    turned = metrics.pose_error(angles, truth.angles)
    checks: dict[str, Callable[[], float]] = {
        "nme": lambda: metrics.nme_by_yaw(nme, truth.angles[:, 1]).mean_of_bins,
        "nme_whole": lambda: nme.mean().item(),
        "nme_auc": lambda: metrics.area_under_ced(nme, 7.0),
        "nme_failure": lambda: metrics.failure_rate(nme, 10.0),
        "nme_balanced": lambda: nme[metrics.balanced_subset(truth.angles[:, 1], 0)].mean().item(),
        "mae": lambda: turned.mean().item(),
        "mae_yaw": lambda: turned[:, 1].mean().item(),
        "mae_geodesic": lambda: metrics.geodesic_error(angles, truth.angles).mean().item(),
    }
    for name, expected in checks.items():
        assert found[name] == pytest.approx(expected(), rel=1e-5), name


def test_poses_beyond_the_limit_count_for_landmarks_only() -> None:
    landmarks, angles, truth = batches(60)
    far = truth.angles.clone()
    far[:5, 0] = 120.0
    scores = FaceScores(99.0)
    scores.update(landmarks, angles, GroundTruth(truth.landmarks, far))
    assert scores.pose_count == 55
    inside = FaceScores(99.0)
    inside.update(*part((landmarks, angles, truth), slice(5, None)))
    assert scores.compute()["mae"] == pytest.approx(inside.compute()["mae"])
    everything = FaceScores()
    everything.update(landmarks, angles, truth)
    assert scores.compute()["nme_whole"] == pytest.approx(everything.compute()["nme_whole"])


def test_predictions_that_are_no_numbers_count() -> None:
    """A network that gives NaN for its hard faces must not get a better mean."""
    landmarks, angles, truth = batches(60)
    for column in range(3):
        spoilt = angles.clone()
        spoilt[7, column] = math.nan
        scores = FaceScores(99.0)
        scores.update(landmarks, spoilt, truth)
        found = scores.compute()
        bad = {"mae", "mae_geodesic", ("mae_pitch", "mae_yaw", "mae_roll")[column]}
        assert {name for name in found if name.startswith("mae") and math.isnan(found[name])} == bad
        assert scores.pose_count == 60
    spoilt = landmarks.clone()
    spoilt[7, 30] = math.nan
    scores = FaceScores()
    scores.update(spoilt, angles, truth)
    assert all(math.isnan(scores.compute()[name]) for name in ("nme", "nme_whole", "nme_3d", "nme_auc"))


def test_every_known_angle_has_its_figure() -> None:
    landmarks, angles, truth = batches(60)
    known = truth.angles.clone()
    known[:, [0, 2]] = math.nan
    scores, everything = FaceScores(), FaceScores()
    scores.update(landmarks, angles, GroundTruth(truth.landmarks, known))
    everything.update(landmarks, angles, truth)
    found = scores.compute()
    assert found["mae_yaw"] == pytest.approx(everything.compute()["mae_yaw"])
    assert all(math.isnan(found[name]) for name in ("mae", "mae_pitch", "mae_roll", "mae_geodesic"))
    assert scores.pose_count == 0 and everything.pose_count == 60


def test_nothing_is_not_a_number() -> None:
    assert all(math.isnan(value) for name, value in FaceScores().compute().items() if name != "nme_failure")


_WORKER = """
import sys
import torch
from mtlsearch.faces.evaluation.accumulator import FaceScores
from tests.faces.test_metrics_protocol import batches, part
rank, port = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
scores = FaceScores(99.0)
everything = batches(60)
scores.update(*part(everything, slice(0, 23) if rank == 0 else slice(23, 60)))
scores.gather()
torch.distributed.barrier()
torch.distributed.destroy_process_group()
print(len(scores), *scores.compute().values())
"""


def test_workers_bring_their_parts_together() -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    commands = [[sys.executable, "-c", _WORKER, str(rank), port] for rank in range(2)]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    answers = []
    for process in running:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        answers.append(out.split())
    alone = FaceScores(99.0)
    alone.update(*batches(60))
    for answer in answers:
        assert int(answer[0]) == 60
        assert [float(value) for value in answer[1:]] == pytest.approx(list(alone.compute().values()), rel=1e-9)


def test_samples_come_to_the_metrics() -> None:
    rng, count = np.random.default_rng(0), 40
    points = torch.from_numpy(rng.normal(50, 20, (count, 68, 3)))
    angles = torch.from_numpy(rng.uniform(-90, 90, (count, 3)))
    angles[3, 0] = torch.nan
    scores = FaceScores(pose_limit=85.0)
    scores.update(points + 1.5, angles.nan_to_num(0.0) + 2.0, GroundTruth(points, angles))
    metric, samples = scores.compute(), scores.samples()
    assert set(samples) == {"nme", "mae"}
    for name, one in samples.items():
        assert one.metric == pytest.approx(metric[name], rel=1e-12)
