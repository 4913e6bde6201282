"""What users ask of a running study from another process: files in its folder, taken when the study gets to them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from mtlsearch.search.space import Point

FOLDER = "requests"


class Requests:
    """The requests of a study. `add_trial` and `stop` are called by commands, the rest by the study's driver."""

    def __init__(self, study: Path) -> None:
        self._folder = study / FOLDER

    def add_trial(self, point: Point) -> None:
        """Asks for a trial at a point of the study's space, before those that the sampler draws."""
        self._write(f"add-{time.time_ns()}-{os.getpid()}.json", point)

    def stop(self, number: int) -> None:
        """Asks a trial to stop after its epoch."""
        self._write(f"stop-{number}.json", {})

    def next_trial(self) -> Point | None:
        """The point that was asked for first, which is then no longer asked for."""
        for path in sorted(self._folder.glob("add-*.json")):
            point: Point = json.loads(path.read_text())
            path.unlink()
            return point
        return None

    def stopped(self, number: int) -> bool:
        """Whether somebody asked this trial to stop."""
        return (self._folder / f"stop-{number}.json").exists()

    def waiting(self) -> int:
        """Trials that were asked for and have not begun."""
        return len(list(self._folder.glob("add-*.json")))

    def _write(self, name: str, content: Any) -> None:
        self._folder.mkdir(exist_ok=True)
        temporary = self._folder / f".{name}"
        temporary.write_text(json.dumps(content))
        temporary.replace(self._folder / name)
