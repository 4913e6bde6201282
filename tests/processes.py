"""What /proc knows of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


def descendants(pid: int) -> set[int]:
    """A process and all that it started, as far as their parents live."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int(_state(folder)[1])
    family: set[int] = set()
    found = {pid}
    while found:
        family |= found
        found = {child for child, parent in parents.items() if parent in found}
    return family


def alive(pids: Iterable[int]) -> dict[int, str]:
    """The title of each of these processes that has not ended."""
    titles = {}
    for pid in pids:
        folder = Path("/proc", str(pid))
        with contextlib.suppress(OSError):
            if _state(folder)[0] != "Z":
                titles[pid] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    return titles


def _state(folder: Path) -> list[str]:
    """State and parent first."""
    return (folder / "stat").read_text().rpartition(")")[2].split()
