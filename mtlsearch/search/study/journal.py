"""The study's journal: one JSON line per event, appended and flushed, so that a kill loses nothing finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtlsearch.errors import InputError

Event = dict[str, Any]


class Journal:
    """Appends events to a file. One writer: the driver of the study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: Event) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Event]:
    """The events of a journal. A last line that a kill cut short is left out.

    Raises:
        InputError: the file is missing, or damaged anywhere but at its end.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.parent} holds no readable study: {error}") from None
    yield from parse_journal(content, str(path))


def parse_journal(content: bytes, where: str) -> Iterator[Event]:
    """As `read_journal`, of a journal that has been read; `where` it lies, for messages."""
    for number, line in enumerate(whole_lines(content).splitlines(), start=1):
        try:
            yield json.loads(line)
        except ValueError:  # bytes that are no text, too
            raise InputError(f"{where}: line {number} is damaged; restore the file from a copy") from None


def mend_journal(path: Path) -> None:
    """Cuts off a last line that a kill left unfinished, so that the next event begins a line of its own."""
    with path.open("rb+") as file:
        file.truncate(len(whole_lines(file.read())))


def whole_lines(content: bytes) -> bytes:
    """A journal without a last line that is not finished."""
    return content[: content.rfind(b"\n") + 1]
