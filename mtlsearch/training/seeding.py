"""Seeds derived from a run's seed, and a scope that leaves the caller's generators as they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed that depends on `seed` and on every word of `purpose`, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator of its own for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the scope the global generators start from `seed`; afterwards they are as they were before.

    Dropout, drop path and timm's initialisation draw from the global generators, so a run needs them seeded,
    and the process it runs in needs them back.
    """
    state = random_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        torch.manual_seed(derive_seed(seed, "global"))
        np.random.seed(derive_seed(seed, "numpy") % 2**32)
        random.seed(derive_seed(seed, "python"))
        yield
    finally:
        set_random_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def random_state() -> dict[str, Any]:
    """The state of torch's global generators, as tensors that a checkpoint can hold."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
