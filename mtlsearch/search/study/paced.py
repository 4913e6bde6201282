"""A slow action that is asked for often and carried out now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

#: of the time that passes, what the action may take
_SHARE = 0.02


class Paced:
    """Carries out `action` when it is asked for, unless that would take more than a fiftieth of the time.

    The leaderboard of n trials takes time in proportion to n; written after each of them it would in all take time in
    proportion to n². Paced, it takes a fiftieth of the study, however many trials there are.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._due = False
        self._not_before = -float("inf")

    def call(self) -> None:
        """Carries the action out now, or leaves it due."""
        self._due = True
        if time.monotonic() >= self._not_before:
            self.finish()

    def finish(self) -> None:
        """Carries it out if it is due."""
        if not self._due:
            return
        started = time.monotonic()
        self._action()
        self._due = False
        now = time.monotonic()
        self._not_before = now + (now - started) / _SHARE
