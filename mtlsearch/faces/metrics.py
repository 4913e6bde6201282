"""NME and pose error to the published protocol. NumPy or torch in, the same kind out."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

#: the published bins of |yaw| in degrees: [0, 30], (30, 60], above 60
YAW_BINS = (30.0, 60.0)


class YawNME(NamedTuple):
    """NME in percent by |yaw|. The papers' "All" is `mean_of_bins`, their "±" is `std_of_bins`."""

    nme_0_30: float
    nme_30_60: float
    nme_60_90: float
    mean_of_bins: float
    std_of_bins: float
    whole_set: float


def nme(predicted: Array, target: Array) -> Array:
    """Normalised mean error of landmarks, per image: mean over points of ‖p − g‖₂ over √(w·h), times 100.

    x and y only; w and h are those of the box around the *target's* landmarks (3DDFA's protocol, Zhu et al. 2017).

    Args:
        predicted: landmarks (N, K, 2 or 3), pixels.
        target: landmarks (N, K, 2 or 3), pixels of the same image.

    Returns:
        (N,) percent.

    Raises:
        ValueError: the shapes differ, or are not (N, K, 2) or (N, K, 3).
    """
    if predicted.shape[:2] != target.shape[:2] or predicted.ndim != 3 or target.ndim != 3:
        raise ValueError(
            f"landmarks must both be (N, K, 2 or 3), got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    p, g = _torch(predicted)[..., :2], _torch(target)[..., :2]
    width_height = g.amax(dim=1) - g.amin(dim=1)
    size = width_height.prod(dim=1).sqrt()
    return _like(100 * (p - g).norm(dim=-1).mean(dim=1) / size, predicted)


def nme_by_yaw(nme: Array, yaw: Array) -> YawNME:
    """Means of per-image NME within the published bins of |yaw|; a bin without images is NaN, and so is "All".

    Args:
        nme: (N,) percent, per image.
        yaw: (N,) degrees, of the target.
    """
    values, angle = _torch(nme).double(), _torch(yaw).double().abs()
    edges = (-1.0, *YAW_BINS, float("inf"))
    bins = torch.stack([values[(angle > low) & (angle <= high)].mean() for low, high in zip(edges, edges[1:])])
    return YawNME(*bins.tolist(), bins.mean().item(), bins.std(correction=0).item(), values.mean().item())


def pose_error(predicted: Array, target: Array) -> Array:
    """Absolute error of each angle, wrapped to [0, 180].

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


def _torch(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def _like(result: torch.Tensor, given: Array) -> Array:
    return result.numpy() if isinstance(given, np.ndarray) else result
