"""What a search may use, and what it has used: seconds of its search phase, GPU hours of its trials.

The account is kept from the journal's events, so that a study that goes on counts what it used before and no pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mtlsearch.errors import InputError
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.study.journal import Event


class Usage:
    """Hears every event of a journal in order and adds up the search phase: its seconds, and its trials' GPU seconds.

    What lies before an event of another phase, or before one that a pause goes before, does not count. What a killed
    process did after its last event is not known, and does not either.
    """

    def __init__(self) -> None:
        self._seconds, self._gpu_seconds = 0.0, 0.0
        self._since: float | None = None
        """when the search last did something; None in a pause or in another phase"""
        self._searched: set[int] = set()
        self._open: set[int] = set()
        self._gpus = 0.0

    def see(self, event: Event) -> None:
        kind, number = event["event"], event.get("number")
        if kind == "trial" and event["phase"] == "search":
            self._searched.add(event["number"])
        if kind != "search" and number not in self._searched:
            self._since = None
            return
        self._seconds, self._gpu_seconds = self.until(event["time"])
        self._since = event["time"]
        if kind == "search":
            self._gpus = event["gpus"]
        elif kind in ("end", "postponed"):
            self._open.discard(event["number"])
        else:
            self._open.add(event["number"])

    def until(self, moment: float) -> tuple[float, float]:
        """Seconds of the search and GPU seconds of its trials up to a moment of the clock, s since the epoch."""
        passed = 0.0 if self._since is None else max(0.0, moment - self._since)
        return self._seconds + passed, self._gpu_seconds + passed * self._gpus * len(self._open)


class Budget:
    """The limits of a search's settings against its usage. What comes after the search phase is beside it."""

    def __init__(self, settings: SearchSettings, usage: Usage, clock: Callable[[], float] = time.time) -> None:
        self._time_budget_s, self._gpu_hours = settings.time_budget_s, settings.gpu_hours
        self._usage, self._clock = usage, clock

    @property
    def out_of(self) -> str:
        """What is used up: "time", "GPU hours", or ""."""
        seconds, gpu_seconds = self._usage.until(self._clock())
        if self._time_budget_s is not None and seconds >= self._time_budget_s:
            return "time"
        if self._gpu_hours is not None and gpu_seconds >= 3600 * self._gpu_hours:
            return "GPU hours"
        return ""

    @property
    def used_up(self) -> str:
        """The same in a sentence's words: "its 600 s are used up", or ""."""
        limit = {"time": f"{self._time_budget_s} s", "GPU hours": f"{self._gpu_hours} GPU hours"}.get(self.out_of)
        return f"its {limit} are used up" if limit else ""


def check_budget(settings: SearchSettings, gpus: float) -> None:
    """Raises InputError where GPU hours are to be counted and a trial gets none; gpus: of a trial."""
    if settings.gpu_hours is not None and not gpus:
        raise InputError(
            f"gpu_hours: {settings.gpu_hours:g} GPU hours cannot be counted, since torch sees no GPU here; limit the "
            "search with --time-budget-s or --num-samples"
        )
