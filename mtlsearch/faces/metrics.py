"""The published figures of merit, each a pure function of arrays. NumPy or torch in, the same kind out.

Sources: NME and its bins, Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", CVPR 2016, section 5.2, and
3DDFA's benchmark code, whose "All" is the mean of the three bins; the balanced subset, Zhu et al., TPAMI 2017 (equal
numbers of random samples per bin); CED, AUC and failure rate, as in the 300-W and Menpo challenges (Sagonas et al.
2016, Zafeiriou et al. 2017); the pose error, Hopenet's protocol (Ruiz et al. 2018) without any minimum over turned
angles; the geodesic error, Huynh, "Metrics for 3D Rotations", J. Math. Imaging Vis. 2009, Φ6.

`accumulator` sums them up over batches and workers.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch

from mtlsearch.faces.geometry import euler_to_matrix

Array = TypeVar("Array", np.ndarray, torch.Tensor)

#: the published bins of |yaw| in degrees: [0, 30], (30, 60], above 60
YAW_BINS = (30.0, 60.0)

#: for each of AFLW's 21 points, the points of the 68 whose mean stands for it (3DDFA's benchmark): brows, eyes with
#: their centres, ear, nose, ear, mouth with its centre, chin
POINTS_68_TO_21: tuple[tuple[int, ...], ...] = (
    (17,), (19,), (21,), (22,), (24,), (26,),
    (36,), (36, 37, 38, 39, 40, 41), (39,), (42,), (42, 43, 44, 45, 46, 47), (45,),
    (2,), (31,), (30,), (35,), (14,),
    (48,), (60, 61, 62, 63, 64, 65, 66, 67), (54,), (8,),
)  # fmt: skip


class YawNME(NamedTuple):
    """NME in percent by |yaw|. The papers' "All" is `mean_of_bins`, their "±" is `std_of_bins`."""

    nme_0_30: float
    nme_30_60: float
    nme_60_90: float
    mean_of_bins: float
    std_of_bins: float
    whole_set: float


def point_errors(predicted: Array, target: Array, dimensions: int = 2) -> Array:
    """Distance of each landmark: (N, K, 2 or 3) pixels twice -> (N, K) pixels, over the first 2 or 3 coordinates.

    Raises:
        ValueError: the shapes differ in N or K, or have fewer coordinates than `dimensions`.
    """
    fits = predicted.ndim == target.ndim == 3 and predicted.shape[:2] == target.shape[:2]
    if not fits or not all(array.shape[2] in (2, 3) and array.shape[2] >= dimensions for array in (predicted, target)):
        raise ValueError(
            f"landmarks must both be (N, K, {'2 or 3' if dimensions == 2 else '3'}), "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    p, g = _torch(predicted)[..., :dimensions], _torch(target)[..., :dimensions]
    return _like((p - g).norm(dim=-1), predicted)


def box_size(box: Array) -> Array:
    """√(w·h) of boxes (N, 4): left, top, right, bottom, pixels -> (N,) pixels."""
    b = _torch(box)
    return _like((b[:, 2:] - b[:, :2]).prod(dim=1).sqrt(), box)


def nme(
    predicted: Array,
    target: Array,
    *,
    visible: Array | None = None,
    size: Array | None = None,
    dimensions: int = 2,
) -> Array:
    """Normalised mean error of landmarks, per image: mean over points of ‖p − g‖₂ over √(w·h), times 100.

    w and h are those of the box around the *target's* landmarks in x and y, unless `size` gives √(w·h). For 68 points,
    in 2D or (dimensions=3) with depth; for AFLW's 21, with the visible ones only.

    Args:
        predicted: landmarks (N, K, 2 or 3), pixels.
        target: landmarks (N, K, 2 or 3), pixels of the same image.
        visible: (N, K) bool, the points that count; all by default. An image without any is NaN.
        size: (N,) pixels, in the box's place; needed where some points are not visible.
        dimensions: 2 for x and y, 3 for x, y and z.

    Returns:
        (N,) percent.

    Raises:
        ValueError: the shapes do not fit, or points are hidden and no size is given.
    """
    errors = _torch(point_errors(predicted, target, dimensions))
    g = _torch(target)[..., :2]
    if visible is None:
        mean = errors.mean(dim=1)
    else:
        seen = _torch(visible).to(errors)
        if tuple(seen.shape) != tuple(errors.shape):
            raise ValueError(f"visible must be {tuple(errors.shape)}, got {tuple(seen.shape)}")
        if size is None and not bool(seen.all()):
            raise ValueError("where points are hidden the box of the landmarks is unknown: give the size to divide by")
        mean = torch.where(seen > 0, errors, 0).sum(dim=1) / seen.sum(dim=1)
    unit = (g.amax(dim=1) - g.amin(dim=1)).prod(dim=1).sqrt() if size is None else _torch(size).to(mean)
    return _like(100 * mean / unit, predicted)


def level_depth(landmarks: Array) -> Array:
    """Landmarks (N, K, 3) with their mean depth at 0: depth has no origin in an image, so 3D errors compare these."""
    points = _torch(landmarks)
    mean = points[..., 2:].mean(dim=1, keepdim=True)
    return _like(torch.cat([points[..., :2], points[..., 2:] - mean], dim=-1), landmarks)


def to_21_points(landmarks: Array) -> Array:
    """68 landmarks (N, 68, d) as AFLW's 21 (N, 21, d); the centres of eyes and mouth are means of their outlines."""
    if landmarks.ndim != 3 or landmarks.shape[1] != 68:
        raise ValueError(f"landmarks must be (N, 68, d), got {tuple(landmarks.shape)}")
    points = _torch(landmarks)
    return _like(torch.stack([points[:, list(group)].mean(dim=1) for group in POINTS_68_TO_21], dim=1), landmarks)


def visible_21_points(visible: Array) -> Array:
    """(N, 68) bool -> (N, 21) bool: of the points of `to_21_points`, those whose constituents are all visible."""
    if visible.ndim != 2 or visible.shape[1] != 68:
        raise ValueError(f"visible must be (N, 68), got {tuple(visible.shape)}")
    seen = _torch(visible)
    return _like(torch.stack([seen[:, list(group)].all(dim=1) for group in POINTS_68_TO_21], dim=1), visible)


def yaw_bin(yaw: Array) -> Array:
    """The published bin of each |yaw|: (N,) degrees -> (N,) int64: 0 in [0, 30], 1 in (30, 60], 2 above; -1 unknown."""
    angle = _torch(yaw).double().abs()
    bins = torch.bucketize(angle, torch.tensor(YAW_BINS, dtype=torch.float64, device=angle.device))
    return _like(torch.where(angle.isnan(), -1, bins), yaw)


def nme_by_yaw(nme: Array, yaw: Array) -> YawNME:
    """Means of per-image NME within the published bins of |yaw|; a bin without images is NaN, and so is "All".

    Args:
        nme: (N,) percent, per image.
        yaw: (N,) degrees, of the target; the last bin has no upper end.
    """
    values, bin_of = _torch(nme).double(), yaw_bin(_torch(yaw))
    bins = torch.stack([values[bin_of == index].mean() for index in range(len(YAW_BINS) + 1)])
    near, middle, far = bins.tolist()
    return YawNME(near, middle, far, bins.mean().item(), bins.std(correction=0).item(), values.mean().item())


def balanced_subset(yaw: Array, seed: int = 0) -> Array:
    """The images of the balanced protocol: from every bin of |yaw| as many as the smallest has, drawn without repeats.

    Args:
        yaw: (N,) degrees, of the target.
        seed: of the draw; the subset depends on it and on `yaw` alone.

    Returns:
        (M,) int64 indices, ascending; the mean of `nme` over them is the protocol's figure.
    """
    bin_of = yaw_bin(_torch(yaw).detach()).cpu().numpy()
    bins = [np.flatnonzero(bin_of == index) for index in range(len(YAW_BINS) + 1)]
    rng = np.random.default_rng(seed)
    fewest = min(map(len, bins))
    chosen = np.sort(np.concatenate([rng.permutation(indices)[:fewest] for indices in bins]))
    return _like(torch.from_numpy(chosen), yaw)


def cumulative_errors(nme: Array, thresholds: Array) -> Array:
    """CED: the share of images whose error is at most each threshold.

    Args:
        nme: (N,) percent, per image.
        thresholds: (T,) percent.

    Returns:
        (T,) shares in [0, 1].
    """
    return _like((_torch(nme)[None] <= _torch(thresholds)[:, None]).double().mean(dim=1), nme)


def area_under_ced(nme: Array, threshold: float) -> float:
    """AUC: the area under the CED from 0 to `threshold`, over `threshold`; in percent, 100 when every error is 0.

    (1/t)·∫₀ᵗ CED(x) dx = mean over images of max(0, 1 − e/t): exact, with no grid of thresholds.

    Args:
        nme: (N,) percent, per image.
        threshold: percent, above 0.
    """
    if not threshold > 0:
        raise ValueError(f"the threshold must be above 0, got {threshold}")
    return 100 * (1 - _torch(nme).double() / threshold).clamp(min=0).mean().item()


def failure_rate(nme: Array, threshold: float) -> float:
    """Share of images, in percent, whose NME (N,) is above `threshold` percent. NaN errors are failures."""
    return 100 * (1 - (_torch(nme) <= threshold).double().mean().item())


def pose_error(predicted: Array, target: Array) -> Array:
    """Absolute error of each angle, wrapped to [0, 180]; its mean over images is the papers' MAE.

    Args:
        predicted: (N, 3) degrees: pitch, yaw, roll.
        target: (N, 3) degrees, in the same order.

    Returns:
        (N, 3) degrees.

    Raises:
        ValueError: the shapes differ or do not end in 3.
    """
    if predicted.shape != target.shape or predicted.shape[-1] != 3:
        raise ValueError(f"angles must both be (N, 3), got {tuple(predicted.shape)} and {tuple(target.shape)}")
    difference = _torch(predicted) - _torch(target)
    return _like(((difference + 180) % 360 - 180).abs(), predicted)


def geodesic_error(predicted: Array, target: Array) -> Array:
    """The angle of the rotation that takes one head pose to the other, ‖log(R₁ᵀR₂)‖, by 2·asin(‖R₁ − R₂‖_F / √8).

    The arc sine keeps small angles exact, where the usual arccos((tr − 1)/2) loses half the digits.

    Args:
        predicted: (N, 3) degrees: pitch, yaw, roll.
        target: (N, 3) degrees, in the same order.

    Returns:
        (N,) degrees in [0, 180].
    """
    if predicted.shape != target.shape or predicted.shape[-1] != 3:
        raise ValueError(f"angles must both be (N, 3), got {tuple(predicted.shape)} and {tuple(target.shape)}")
    apart = euler_to_matrix(_torch(predicted).double()) - euler_to_matrix(_torch(target).double())
    half = (apart.square().sum(dim=(-2, -1)) / 8).sqrt().clamp(max=1)
    return _like(torch.rad2deg(2 * torch.asin(half)), predicted)


def angles_that_count(angles: Array, limit: float | None) -> Array:
    """(N, 3) degrees -> (N, 3) bool: the angles that are known, of images with none beyond ±limit."""
    a = _torch(angles)
    known = ~a.isnan()
    return _like(known if limit is None else known & ~(a.abs() > limit).any(dim=-1, keepdim=True), angles)


def within_pose_limit(angles: Array, limit: float | None) -> Array:
    """(N, 3) degrees -> (N,) bool: the images whose whole pose counts: every angle known and none beyond ±limit."""
    return _like(_torch(angles_that_count(angles, limit)).all(dim=-1), angles)


def _torch(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Whole numbers become float64: means and roots of them are no whole numbers."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
    return tensor if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor.double()


def _like(result: torch.Tensor, given: Array) -> Array:
    return result.numpy() if isinstance(given, np.ndarray) else result
