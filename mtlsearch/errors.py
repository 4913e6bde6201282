"""Errors for the person who can mend them.

`InputError` is raised for anything a user wrote or brought: a config, a space, a file, a folder. The commands
print its message as one line and end with exit status 2; every other exception is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what was given, what is allowed, what to do."""


def unknown_name(kind: str, given: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not among the allowed ones, with the nearest one if there is one near.

    >>> unknown_name("strategy", "pcgrd", ["pcgrad", "weighted_sum"])
    "unknown strategy 'pcgrd'; did you mean 'pcgrad'? (allowed: pcgrad, weighted_sum)"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}{hint} (allowed: {', '.join(names)})"
