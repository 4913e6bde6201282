"""How to wait less for imports: names that are imported when first used, and no garbage collection meanwhile."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of a package whose names live in `homes`: name -> submodule."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find


@contextmanager
def importing() -> Iterator[None]:
    """Around large imports: what they make stays to the end of the process, and is not searched for garbage.

    It is a quarter of the time that torch and Ray take to import, and half a second when the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        if "triton" not in sys.modules:  # at the end of the process it reports as leaked what was frozen
            gc.freeze()
        gc.enable()
