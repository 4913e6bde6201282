"""Head pose from 3D points: the rotation that best takes a frontal template to them, points weighted.

    min over s, R, t of Σ_i w_i ‖p_i − (s·R·m_i + t)‖²

Solved for R by Horn, "Closed-form solution of absolute orientation using unit quaternions", JOSA A 1987, section 4:
the quaternion is the leading eigenvector of a symmetric 4×4 matrix. It is found by repeated squaring, which is nothing
but matrix products: the same in a training run, on a GPU and in an exported graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtlsearch.faces.geometry import euler_to_matrix

_SQUARINGS = 24  # powers of 2²⁴: eigenvalues whose gap is 1e-6 of their size are told apart


def _upright(points: Tensor) -> Tensor:
    """Pixels with y down -> the model's axes, y up."""
    return points * points.new_tensor([1.0, -1.0, 1.0])


def _centred(points: Tensor, weights: Tensor) -> Tensor:
    """(…, K, 3) less their weighted centroid; weights (K,) of sum 1."""
    return points - (weights[:, None] * points).sum(-2, keepdim=True)


def fit_rotation(points: Tensor, template: Tensor, weights: Tensor) -> Tensor:
    """R of the fit above: points (N, K, 3) pixels, y down; template (K, 3), y up; weights (K,) of sum 1 -> (N, 3, 3).

    Points that coincide give the identity; points that are not numbers give no numbers.
    """
    p, m = _centred(_upright(points), weights), _centred(template, weights)
    size = p.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    s = (m * weights[:, None]).T @ (p / size)  # Horn's S_ab = Σ m_a p_b
    xx, xy, xz = s[:, 0].unbind(-1)
    yx, yy, yz = s[:, 1].unbind(-1)
    zx, zy, zz = s[:, 2].unbind(-1)
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return _rotation_of(_leading_eigenvector(matrix))


def _leading_eigenvector(matrix: Tensor) -> Tensor:
    """Of symmetric matrices (N, 4, 4), the unit eigenvector of the largest eigenvalue (N, 4); 0 of a zero matrix."""
    tiny = torch.finfo(matrix.dtype).tiny
    norm = matrix.square().sum((-2, -1), keepdim=True).sqrt()
    power = matrix + norm * torch.eye(4, dtype=matrix.dtype, device=matrix.device)  # no eigenvalue below 0
    for _ in range(_SQUARINGS):
        power = power / power.square().sum((-2, -1), keepdim=True).sqrt().clamp_min(tiny)
        power = power @ power
    # q qᵀ up to its size: any column is q, and the longest is the most exact
    longest = power.diagonal(dim1=-2, dim2=-1).argmax(-1)
    column = power.gather(2, longest[:, None, None].expand(-1, 4, 1)).squeeze(-1)
    return column / column.square().sum(-1, keepdim=True).sqrt().clamp_min(tiny)


def _rotation_of(quaternion: Tensor) -> Tensor:
    """(N, 4) -> (N, 3, 3)"""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def frontal_template(points: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """The mean face, turned frontal, and how much each of its points is to be trusted.

    points (N, K, 3) pixels, y down; angles (N, 3) degrees, of which faces without any are left out. Each face is
    centred, scaled to unit size and turned back by its own rotation. Returns the mean (K, 3), y up, and weights (K,) of
    sum 1: the inverse of each point's variance about the mean, so that the jaw and the lips, which move, count less.
    """
    known = torch.isfinite(angles).all(dim=1)
    faces = _upright(points[known].double())
    faces = faces - faces.mean(1, keepdim=True)
    size = faces.square().sum(-1).mean(1).sqrt().clamp_min(1e-12)
    frontal = (faces / size[:, None, None]) @ euler_to_matrix(angles[known].double())
    template = frontal.mean(0)
    variance = (frontal - template).square().sum(-1).mean(0)
    weights = 1 / (variance + 1e-3 * variance.mean() + 1e-12)
    return template.float(), (weights / weights.sum()).float()
