"""The image part of `augmentation` in one pass over bytes: tone table, bilinear sampling, grey, noise, normalisation.

Same definition as `augmentation.transform_reference`; runs in the calling thread and releases the interpreter's lock.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import torch
from torch import Tensor

from mtlsearch.faces.augmentation import IMAGENET_MEAN, IMAGENET_STD, LUMA, Draws, noise_tile, sampling_matrix

_MEAN = np.array(IMAGENET_MEAN, np.float32)
_STD = np.array(IMAGENET_STD, np.float32)
_LUMA = np.array(LUMA, np.float32)


@nb.njit(cache=True, nogil=True)
def _fused(images, matrix, table, grey, sigma, offset, erased, tile, mean, std, luma, out):  # type: ignore[no-untyped-def]
    batch, height, width = images.shape[0], images.shape[1], images.shape[2]
    size, period = out.shape[2], tile.shape[0]
    zero, one = np.float32(0), np.float32(1)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    k0, k1, k2 = one / std[0], one / std[1], one / std[2]
    b0, b1, b2 = -mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2]
    for b in range(batch):
        image, tone, m = images[b], table[b], matrix[b]
        g, s = grey[b], sigma[b]
        out0, out1, out2 = out[b, 0], out[b, 1], out[b, 2]
        top, left, low, far = erased[b, 0], erased[b, 1], erased[b, 2], erased[b, 3]
        for y in range(size):
            ty = (y + offset[b, 0]) % period
            x_start, y_start = m[0, 1] * y + m[0, 2], m[1, 1] * y + m[1, 2]
            in_rows = top <= y < low
            for x in range(size):
                sx = min(max(m[0, 0] * np.float32(x) + x_start, zero), right)
                sy = min(max(m[1, 0] * np.float32(x) + y_start, zero), bottom)
                i, j = int(sy), int(sx)
                i1, j1 = min(i + 1, height - 1), min(j + 1, width - 1)
                fx, fy = sx - np.float32(j), sy - np.float32(i)
                w11 = fx * fy
                w10, w01 = fy - w11, fx - w11
                w00 = one - fx - w10
                c0 = w00 * tone[image[i, j, 0]] + w01 * tone[image[i, j1, 0]]
                c0 += w10 * tone[image[i1, j, 0]] + w11 * tone[image[i1, j1, 0]]
                c1 = w00 * tone[image[i, j, 1]] + w01 * tone[image[i, j1, 1]]
                c1 += w10 * tone[image[i1, j, 1]] + w11 * tone[image[i1, j1, 1]]
                c2 = w00 * tone[image[i, j, 2]] + w01 * tone[image[i, j1, 2]]
                c2 += w10 * tone[image[i1, j, 2]] + w11 * tone[image[i1, j1, 2]]
                if g > zero:
                    light = luma[0] * c0 + luma[1] * c1 + luma[2] * c2
                    c0 += g * (light - c0)
                    c1 += g * (light - c1)
                    c2 += g * (light - c2)
                if s > zero:
                    noise = tile[ty, (x + offset[b, 1]) % period]
                    c0 += s * noise[0]
                    c1 += s * noise[1]
                    c2 += s * noise[2]
                if in_rows and left <= x < far:
                    out0[y, x] = zero
                    out1[y, x] = zero
                    out2[y, x] = zero
                else:
                    out0[y, x] = c0 * k0 + b0
                    out1[y, x] = c1 * k1 + b1
                    out2[y, x] = c2 * k2 + b2


def transform_fused(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """(B, H, H, 3) uint8 on the CPU -> (B, 3, S, S) float32, normalised."""
    out = torch.empty(len(images), 3, output_size, output_size)
    _fused(
        images.numpy(), sampling_matrix(draws, images.shape[2]).float().numpy(), draws.table.numpy(),
        draws.grey.numpy(), draws.sigma.numpy(), draws.offset.numpy(), draws.erased.numpy(), noise_tile(),
        _MEAN, _STD, _LUMA, out.numpy(),
    )  # fmt: skip
    return out
