"""What users ask of a running study from another process: files in its folder, taken when the study gets to them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlsearch.search.plan.space import Point

FOLDER = "requests"


@dataclass(frozen=True)
class Request:
    """A trial that was asked for: its file, and the point of the study's space."""

    path: Path
    point: Point


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

    def next_trial(self) -> Request | None:
        """What was asked for first. It stays asked for until it is `taken` or refused, so that no kill loses it."""
        for path in sorted(self._folder.glob("add-*.json")):
            return Request(path, json.loads(path.read_text()))
        return None

    def taken(self, request: Request) -> None:
        """The trial is registered."""
        request.path.unlink()

    def refuse(self, request: Request, why: str) -> None:
        """The trial is not to be: the study has changed since it was asked for."""
        self._write(request.path.name.replace("add-", "refused-"), {"point": request.point, "why": why})
        request.path.unlink()

    def refused(self) -> list[str]:
        """Why trials that were asked for were refused, in order."""
        return [json.loads(path.read_text())["why"] for path in sorted(self._folder.glob("refused-*.json"))]

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
