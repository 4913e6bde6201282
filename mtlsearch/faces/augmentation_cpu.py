"""The image part of `augmentation` over bytes on the CPU, by the same definition as `augmentation.transform_reference`.

One image at a time, so that everything stays in the cache: tone table and bilinear sampling in one pass, blur where it
was drawn, then noise, normalisation and erasing in one pass. Batches are shared out to torch's number of threads; numba
releases the interpreter's lock, and the result does not depend on how many there are.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numba as nb
import numpy as np
import torch
from torch import Tensor

from mtlsearch.faces.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LUMA,
    Draws,
    blur_weights,
    noise_tile,
    sampling_matrix,
)

_MEAN = np.array(IMAGENET_MEAN, np.float32)
_STD = np.array(IMAGENET_STD, np.float32)
_LUMA = np.array(LUMA, np.float32)
#: images per thread below which another thread costs more than it saves
_FEWEST = 8


@nb.njit(cache=True, nogil=True)
def _sample(image, m, tone, grey, luma, out):  # type: ignore[no-untyped-def]
    """out (3, S, S): the image's bytes through their tone tables, sampled bilinearly, grey where it was drawn.

    Unsigned indices into the flat image: signed ones cost a test for negative values at every access, a third of all.
    """
    height, width, size = image.shape[0], image.shape[1], out.shape[1]
    zero, one = np.float32(0), np.float32(1)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    last_column, last_row = np.uint32(width - 1), np.uint32(height - 1)
    pixel, row = np.uint32(3), np.uint32(3 * width)
    one_byte = np.uint32(1)
    tone0, tone1, tone2 = tone[0], tone[1], tone[2]
    flat = image.reshape(-1)
    for y in range(size):
        x_start, y_start = m[0, 1] * np.float32(y) + m[0, 2], m[1, 1] * np.float32(y) + m[1, 2]
        out0, out1, out2 = out[0, y], out[1, y], out[2, y]
        for x in range(size):
            sx = min(max(m[0, 0] * np.float32(x) + x_start, zero), right)
            sy = min(max(m[1, 0] * np.float32(x) + y_start, zero), bottom)
            i, j = np.uint32(sy), np.uint32(sx)
            fx, fy = sx - np.float32(j), sy - np.float32(i)
            p00 = i * row + j * pixel
            p01 = p00 + pixel if j < last_column else p00
            down = row if i < last_row else np.uint32(0)
            p10, p11 = p00 + down, p01 + down
            w11 = fx * fy
            w10, w01 = fy - w11, fx - w11
            w00 = one - fx - w10
            c0 = w00 * tone0[flat[p00]] + w01 * tone0[flat[p01]] + w10 * tone0[flat[p10]] + w11 * tone0[flat[p11]]
            p00, p01, p10, p11 = p00 + one_byte, p01 + one_byte, p10 + one_byte, p11 + one_byte
            c1 = w00 * tone1[flat[p00]] + w01 * tone1[flat[p01]] + w10 * tone1[flat[p10]] + w11 * tone1[flat[p11]]
            p00, p01, p10, p11 = p00 + one_byte, p01 + one_byte, p10 + one_byte, p11 + one_byte
            c2 = w00 * tone2[flat[p00]] + w01 * tone2[flat[p01]] + w10 * tone2[flat[p10]] + w11 * tone2[flat[p11]]
            if grey > zero:
                light = luma[0] * c0 + luma[1] * c1 + luma[2] * c2
                c0 += grey * (light - c0)
                c1 += grey * (light - c1)
                c2 += grey * (light - c2)
            out0[x], out1[x], out2[x] = c0, c1, c2


@nb.njit(cache=True, nogil=True)
def _blur(plane, weights, scratch):  # type: ignore[no-untyped-def]
    """The plane (S, S) under a Gaussian, in place: rows into scratch (S, S), columns back; its edge continues."""
    size, radius = plane.shape[0], len(weights) // 2
    for y in range(size):
        for x in range(size):
            total = np.float32(0)
            for k in range(-radius, radius + 1):
                total += weights[k + radius] * plane[y, min(max(x + k, 0), size - 1)]
            scratch[y, x] = total
    for y in range(size):
        plane[y] = np.float32(0)
        for k in range(-radius, radius + 1):
            row, weight = scratch[min(max(y + k, 0), size - 1)], weights[k + radius]
            for x in range(size):
                plane[y, x] += weight * row[x]


@nb.njit(cache=True, nogil=True)
def _finish(out, sigma, offset, erased, tile, mean, std):  # type: ignore[no-untyped-def]
    """Noise, normalisation and erasing of (3, S, S), in place."""
    size, period = out.shape[1], tile.shape[1]
    top, left, low, far = erased[0], erased[1], erased[2], erased[3]
    for channel in range(3):
        scale, shift = np.float32(1) / std[channel], -mean[channel] / std[channel]
        for y in range(size):
            row = out[channel, y]
            if sigma > 0:
                noise = tile[channel, (y + offset[0]) % period]
                x, column = 0, offset[1] % period
                while x < size:  # runs without a modulo, which the compiler turns into vector code
                    run = min(size - x, period - column)
                    for k in range(run):
                        row[x + k] += sigma * noise[column + k]
                    x, column = x + run, 0
            for x in range(size):
                row[x] = row[x] * scale + shift
            if top <= y < low:
                row[max(left, 0) : min(far, size)] = np.float32(0)


@nb.njit(cache=True, nogil=True)
def _transform(  # type: ignore[no-untyped-def]
    images, matrix, table, grey, blur, weights, sigma, offset, erased, tile, mean, std, luma, out
):
    scratch = np.empty((out.shape[2], out.shape[3]), np.float32)
    for b in range(len(images)):
        _sample(images[b], matrix[b], table[b], grey[b], luma, out[b])
        if blur[b] > 0:
            for channel in range(3):
                _blur(out[b, channel], weights[b], scratch)
        _finish(out[b], sigma[b], offset[b], erased[b], tile, mean, std)


@lru_cache(maxsize=1)
def _tile() -> np.ndarray:
    return np.ascontiguousarray(noise_tile().transpose(2, 0, 1))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no threads of its parent


def transform_fused(images: Tensor, draws: Draws, output_size: int) -> Tensor:
    """(B, H, H, 3) uint8 on the CPU -> (B, 3, S, S) float32, normalised."""
    batch = len(images)
    out = torch.empty(batch, 3, output_size, output_size)
    arrays = (
        images.contiguous().numpy(), sampling_matrix(draws, images.shape[2]).float().numpy(), draws.table.numpy(),
        draws.grey.numpy(), draws.blur.numpy(), blur_weights(draws.blur).numpy(), draws.sigma.numpy(),
        draws.offset.numpy(), draws.erased.numpy(),
    )  # fmt: skip

    def run(start: int, stop: int) -> None:
        parts = [array[start:stop] for array in arrays]
        _transform(*parts, _tile(), _MEAN, _STD, _LUMA, out.numpy()[start:stop])  # type: ignore[call-arg]

    threads = max(1, min(torch.get_num_threads(), batch // _FEWEST))
    if threads == 1:
        run(0, batch)
        return out
    edges = np.linspace(0, batch, threads + 1).astype(int).tolist()
    tasks = [_pool(threads).submit(run, start, stop) for start, stop in pairwise(edges[1:])]
    run(edges[0], edges[1])
    for task in tasks:
        task.result()
    return out
