"""A thread that writes to the tracker, so that a slow or absent tracker never holds up training."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

#: seconds between tries while the tracker does not answer
_RETRY_S = 2.0

#: MLflow's codes for entries that it will never take
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")

Write = Callable[[], object]


class Writer:
    """Carries out writes in order. A write that fails is tried again until it goes through or time is up."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._deadline: float | None = None
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        self._queue.put(write)

    def close(self, timeout_s: float = 60.0) -> int:
        """Waits until all is written, or until nothing has been for `timeout_s`; returns how many were given up."""
        self._patience_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._queue.put(None)
        while self._thread.is_alive() and time.monotonic() < self._deadline + _RETRY_S:
            self._thread.join(_RETRY_S)
        return self.lost + (self._queue.qsize() if self._thread.is_alive() else 0)

    def _work(self) -> None:
        silent = False
        while (write := self._queue.get()) is not None:
            while True:
                try:
                    write()
                    if self._deadline is not None:  # a slow tracker is waited for, an absent one is not
                        self._deadline = time.monotonic() + self._patience_s
                    if silent:
                        self._say("tracker: it answers again; what was held back is being written")
                    silent = False
                    break
                except Exception as error:  # whatever the tracker's client throws, the study goes on
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    if getattr(error, "error_code", None) in _REFUSALS:
                        self._say(f"tracker: an entry was refused ({reason})")
                        self.lost += 1
                        break
                    if self._deadline is not None and time.monotonic() > self._deadline:
                        self.lost += 1
                        break
                    if not silent:
                        self._say(f"tracker: not reachable ({reason}); holding back and trying again")
                    silent = True
                    time.sleep(_RETRY_S)
