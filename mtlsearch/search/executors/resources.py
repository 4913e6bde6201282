"""How many trials run at once, and with how many threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from mtlsearch.errors import InputError
from mtlsearch.training.environment import available_cpus

#: beyond this a small network trains no faster on CPU
_MOST_THREADS = 4
#: resident memory of one trial process with torch, timm and numba loaded and a small model training
_TRIAL_BYTES = 1.5e9


@dataclass(frozen=True)
class Resources:
    """`concurrent` trials with `cpus` CPUs and `gpus` of a GPU each, of `total` CPUs that this process may use."""

    total: int
    concurrent: int
    cpus: int
    gpus: float = 0.0


def plan_resources(
    num_samples: int,
    cpus_per_trial: int | None = None,
    concurrent: int | None = None,
    trial_bytes: float = _TRIAL_BYTES,
    trial_gpu_bytes: float = 0.0,
) -> Resources:
    """Fills the machine without starting so many trials at once that the sampler learns from none of them.

    trial_bytes, trial_gpu_bytes: memory of a trial, of the machine and of a GPU; as many as fit are started, where
    `concurrent` does not say.

    Raises:
        InputError: a trial needs more CPUs than there are.
    """
    total = available_cpus()
    if cpus_per_trial is not None and cpus_per_trial > total:
        raise InputError(
            f"a trial needs {cpus_per_trial} CPUs and this process may use {total}; lower --cpus-per-trial"
        )
    if concurrent is None:
        fitting = total // (cpus_per_trial or 1)
        concurrent = min(fitting, max(2, num_samples // 4), max(1, int(_free_memory() / trial_bytes)))
        if torch.cuda.is_available() and trial_gpu_bytes:
            whole = torch.cuda.get_device_properties(0).total_memory
            concurrent = min(concurrent, torch.cuda.device_count() * max(1, int(whole / trial_gpu_bytes)))
    concurrent = max(1, min(concurrent, total // (cpus_per_trial or 1), num_samples))
    cpus = cpus_per_trial or max(1, min(_MOST_THREADS, total // concurrent))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Resources(total, concurrent, cpus, gpus / concurrent)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")
