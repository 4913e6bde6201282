"""How many trials fit on one GPU, by the memory that one of them takes."""

from __future__ import annotations

import math

#: decimals of a share that Ray tells apart
_DECIMALS = 4


def trials_of(share: float) -> int:
    """How many trials Ray puts on a GPU of which each gets `share`, from 0 to 1."""
    return int(1 / share + 1e-9) if share < 1 else 1


def fitting(trial: float, gpu: float) -> int:
    """How many trials of so many bytes fit a GPU of so many; 0 where not one does."""
    return int(gpu // trial)


def share_of(trials: int) -> float:
    """The share of a GPU of which Ray puts so many trials on one: rounded down, so that the last one fits.

    Up to 99 trials, beyond which the rounding would let one more in.
    """
    scale = 10**_DECIMALS
    return math.floor(scale / trials) / scale


def advice(trial: float, gpu: float, share: float) -> str:
    """Whether trials fit of which each is to have `share` of a GPU, and which share is the smallest that fits.

    trial, gpu: bytes that one takes, head-room included, and that a GPU has.
    """
    most, planned = fitting(trial, gpu), trials_of(share)
    each, whole = f"{trial / 1e9:.1f} GB", f"{gpu / 1e9:.1f} GB"
    if most == 0:
        return f"a trial takes {each} and a GPU has {whole}: not one fits; lower training.batch_size"
    best = f"--gpus-per-worker {share_of(min(most, 99)):g}"
    if planned > most:
        return f"--gpus-per-worker {share:g} does not fit: {planned} trials × {each} on {whole}; {most} do with {best}"
    fit = f"--gpus-per-worker {share:g}: {planned} trial{'s' * (planned > 1)} × {each} fit {whole}"
    return f"{fit}; {most} do with {best}" if most > planned else fit
