"""Folders for results: each run and study gets one that nobody else has."""

from __future__ import annotations

from pathlib import Path

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
