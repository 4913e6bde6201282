"""What passes between the processes that train a trial and the one that stands for it in Ray Tune."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

#: what stays on the head, where no spot instance goes away, and takes none of its CPUs
ON_HEAD = {"node:__internal_head__": 0.001}


@dataclass
class _Channel:
    """Results of one trial that nobody has taken yet, and the sender of the last that was taken, who waits."""

    results: deque[tuple[dict[str, Any], asyncio.Future[bool]]] = field(default_factory=deque)
    waiting: asyncio.Future[bool] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False
    closed: bool = False

    def answer(self) -> None:
        """Lets the sender of what was taken last go on, or tells it to stop."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(self.stopped)
        self.waiting = None


class Exchange:
    """An asynchronous actor, one for all trials of a search.

    Sending waits until the receiver asks for the next result, as a report to Ray Tune does: a trial that is stopped
    trains nothing beyond the epoch after which it was.
    """

    def __init__(self) -> None:
        self._channels: dict[int, _Channel] = {}

    async def begin(self, trial: int) -> None:
        """Before a trial is trained, the first time or anew."""
        self._channels[trial] = _Channel()

    async def send(self, trial: int, result: dict[str, Any]) -> bool:
        """From a process that trains: returns whether to stop, once the search has seen the result."""
        channel = self._channels[trial]
        if channel.stopped:
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        channel.results.append((result, answer))
        channel.changed.set()
        return await answer

    async def next(self, trial: int) -> dict[str, Any] | None:
        """The next result, None when the trial is closed and there is none."""
        channel = self._channels[trial]
        channel.answer()
        while not channel.results and not channel.closed:
            channel.changed.clear()
            await channel.changed.wait()
        if not channel.results:
            return None
        result, channel.waiting = channel.results.popleft()
        return result

    async def stop(self, trial: int) -> None:
        """Whoever trains this trial is to end, now or when it sends next."""
        if channel := self._channels.get(trial):
            channel.stopped = True
            channel.answer()
            while channel.results:
                channel.results.popleft()[1].set_result(True)

    async def stopped(self, trial: int) -> bool:
        return self._channels[trial].stopped

    async def close(self, trial: int) -> None:
        """Nobody trains this trial any more."""
        self._channels[trial].closed = True
        self._channels[trial].changed.set()


@contextmanager
def running_exchange() -> Iterator[ActorHandle]:
    """An exchange on the head of the Ray that this process is connected to."""
    exchange: ActorHandle = ray.remote(num_cpus=0, resources=ON_HEAD)(Exchange).remote()  # type: ignore[assignment]
    try:
        yield exchange
    finally:
        ray.kill(exchange)
