"""Time stamps from several processes in one file: who noted what, when."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SEARCH_COST_NOTES"


@dataclass(frozen=True)
class Note:
    when: float
    """seconds since the epoch"""
    process: int
    cpu: float
    """seconds of CPU that the process had used"""
    what: str


def note(what: str) -> None:
    """Appends a line to the file that the environment names; one write, so that lines of processes stay whole."""
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write(f"{time.time():.6f} {os.getpid()} {time.process_time():.3f} {what}\n")


def read_notes(path: Path) -> list[Note]:
    lines = (line.split(maxsplit=3) for line in path.read_text().splitlines())
    return [Note(float(when), int(process), float(cpu), what) for when, process, cpu, what in lines]
