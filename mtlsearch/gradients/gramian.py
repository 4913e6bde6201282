"""The Gramian of task gradients, accurately and fast, and the two operations around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

# Columns in one float32 product. Short enough that its rounding (about 3e-7 relative) vanishes beside 1e-5,
# long enough that the batched product runs at memory speed.
_BLOCK = 1024
# Columns cast to float64 at a time where float32 products cannot be trusted; bounds the temporary to
# T·2²⁰·8 bytes.
_CAST_BLOCK = 1 << 20


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switches autocast off: a bfloat16 Gramian would have two digits."""
    return torch.autocast(device.type, enabled=False)


@torch.no_grad()
def gramian(rows: Tensor) -> Tensor:
    """G = J Jᵀ: rows (T, P), float32 or float64 -> (T, T) float64 on the rows' device.

    float32 rows are multiplied in float32 over blocks of columns and the blocks summed in float64: a single float32
    product errs by 3e-4 on nearly opposed rows, and casting all rows to float64 is slow.
    """
    with full_precision(rows.device):
        if rows.dtype == torch.float64:
            return rows @ rows.T
        if not _exact_float32(rows.device):
            total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
            for block in rows.split(_CAST_BLOCK, dim=1):
                wide = block.double()
                total.addmm_(wide, wide.T)
            return total
        tasks, width = rows.shape
        whole = width - width % _BLOCK
        blocks = rows[:, :whole].view(tasks, -1, _BLOCK).transpose(0, 1)
        rest = rows[:, whole:]
        # The sum over blocks is taken in float64 of float32 products.
        return torch.bmm(blocks, blocks.transpose(1, 2)).sum(0, dtype=torch.float64) + (rest @ rest.T).double()


@torch.no_grad()
def weighted_rows(rows: Tensor, tasks: Sequence[int], weights: Tensor) -> Tensor:
    """Σ_k weights[k]·rows[tasks[k]]: rows (T, P), weights (K,) -> new (P,) of the rows' dtype.

    Never through a reduced-precision matrix product, and without reading `weights` on the host.
    """
    weights = weights.to(rows.device, rows.dtype)
    if rows.device.type == "cpu" and len(tasks) == len(rows):
        return torch.mv(rows.T, weights)  # reads each row once
    total = rows[tasks[0]] * weights[0]
    for position, task in enumerate(tasks[1:], start=1):
        total.addcmul_(rows[task], weights[position])
    return total


def sum_on_first_device(parts: Iterable[Tensor]) -> Tensor:
    """The sum of Gramians that may lie on several devices, on that of the first."""
    first, *others = parts
    for other in others:
        first = first + other.to(first.device, non_blocking=True)
    return first


def norms(gramian: Tensor) -> Tensor:
    """Gradient norms (T,) from a Gramian (T, T)."""
    return gramian.diagonal().clamp(min=0).sqrt()


def cosines(gramian: Tensor) -> Tensor:
    """Cosine similarities (T, T) from a Gramian (T, T); 0 where a gradient is zero."""
    length = norms(gramian)
    scale = torch.outer(length, length)
    return torch.where(scale > 0, gramian / scale, 0.0).clamp(-1, 1)


def _exact_float32(device: torch.device) -> bool:
    """Whether a float32 matrix product is one: users may have allowed TF32 or bfloat16 inside it."""
    return device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
