"""Folders for results: each run and study gets one that nobody else has."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mtlsearch.errors import InputError


def check_name(results: Path, name: str | None) -> None:
    """Raises InputError where a folder of this name cannot be made under `results`."""
    if name is None:
        return
    if not name or Path(name).name != name or name in (".", ".."):
        raise InputError(f"--name {name!r} must be a plain name without folders; give --results for another place")
    if (results / name).exists():
        raise InputError(f"{results / name} is there already; give another --name")


def new_folder(results: Path, default: str, name: str | None = None) -> Path:
    """Makes `results/name`, or `results/default` with -2, -3, … where others started in the same second.

    Raises:
        InputError: the name is taken or is no plain name, or the place cannot be written.
    """
    check_name(results, name)
    try:
        results.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            folder = results / (name or (default if attempt == 1 else f"{default}-{attempt}"))
            try:
                folder.mkdir()
            except FileExistsError:
                check_name(results, name)
                continue
            return folder
    except OSError as error:
        raise InputError(f"results folder {results} cannot be written ({error.strerror}); give another place") from None
    raise InputError(f"{results} holds a thousand folders named {default}; give a name")


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for as long as the scope lasts. Those of this prefix that killed processes left on this node
    go first."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*.lock"):
        with suppress(OSError, Timeout), FileLock(left, timeout=0):  # held by nobody, and no other user's
            _remove(left.with_suffix(""))
    folder = Path(tempfile.gettempdir(), f"{prefix}{uuid.uuid4().hex}")
    with FileLock(f"{folder}.lock"):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.lock").unlink(missing_ok=True)
