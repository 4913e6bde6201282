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
from ray.util.placement_group import PlacementGroup, remove_placement_group

#: what stays on the head, where no spot instance goes away, and takes none of its CPUs
ON_HEAD = {"node:__internal_head__": 0.001}


@dataclass
class _Channel:
    """Results of one trial that nobody has taken yet, and the sender of the last that was taken, who waits."""

    group: str
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

    def close(self) -> None:
        self.closed = True
        self.changed.set()


@dataclass
class _Group:
    """A group of workers: the jobs that it was given, the last of which is the present one. They are pickled: reading
    them takes torch and all that trains, which this process need not wait for."""

    jobs: list[bytes] = field(default_factory=list)
    joined: int = 0
    """workers that have begun, those that were started again included"""
    idle: set[int] = field(default_factory=set)
    """ranks of the workers that wait for the job after the present one"""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    closed: bool = False
    controller: ActorHandle | None = None
    placement: PlacementGroup | None = None


class Exchange:
    """An asynchronous actor, one for all trials of a search.

    Sending waits until the receiver asks for the next result, as a report to Ray Tune does: a trial that is stopped
    trains nothing beyond the epoch after which it was.
    """

    def __init__(self) -> None:
        self._channels: dict[int, _Channel] = {}
        self._groups: dict[str, _Group] = {}

    async def give(self, name: str, trial: int, job: bytes) -> bool:
        """A trial's job for the workers of a group, after the one before it is over; whether the group takes it.

        A trial that is given to another group than before has lost its driver: the old group's place is made free.
        """
        group = self._groups.setdefault(name, _Group())
        if group.closed:
            return False
        before = self._channels.get(trial)
        if before is not None and before.group != name:
            await self.lose(trial)
        self._channels[trial] = _Channel(name)
        async with group.changed:
            group.jobs.append(job)
            group.idle.clear()
            group.changed.notify_all()
        return True

    async def announce(self, name: str, controller: ActorHandle) -> None:
        """Who starts and ends the workers of a group."""
        self._groups[name].controller = controller

    async def controller(self, name: str) -> ActorHandle | None:
        return self._groups[name].controller

    async def join(self, name: str, rank: int, placement: PlacementGroup | None) -> int:
        """From a worker of a group that begins: the place of the present job among those of the group."""
        group = self._groups[name]
        group.joined += 1
        group.idle.discard(rank)
        group.placement = placement
        return len(group.jobs) - 1

    async def job(self, name: str, rank: int, place: int) -> bytes | None:
        """For a worker of a group: the job at that place, when there is one; None when there will be none."""
        group = self._groups[name]
        async with group.changed:
            if place == len(group.jobs):
                group.idle.add(rank)
                group.changed.notify_all()
            await group.changed.wait_for(lambda: group.closed or place < len(group.jobs))
        return None if group.closed else group.jobs[place]

    async def is_idle(self, name: str, workers: int) -> bool:
        """Returns when all workers of a group wait for a job: True, or False where one was started again in between,
        or the group has ended."""
        group = self._groups[name]
        async with group.changed:
            await group.changed.wait_for(lambda: group.closed or len(group.idle) == workers)
        return not group.closed and group.joined == workers

    async def close_group(self, name: str) -> None:
        """There is no further job for a group, or the group has ended. Nobody trains what it was training."""
        group = self._groups[name]
        async with group.changed:
            group.closed = True
            group.changed.notify_all()

    async def ended(self, name: str) -> None:
        """A group has ended: nobody trains its trials any more, and it holds no place."""
        await self.close_group(name)
        self._release(name)
        for channel in self._channels.values():
            if channel.group == name:
                channel.close()

    async def lose(self, trial: int) -> None:
        """The driver of a trial is no more, and with it the group's controller: makes the group's place free."""
        if channel := self._channels.get(trial):
            await self.ended(channel.group)

    def _release(self, name: str) -> None:
        """Ray keeps the place of a group whose controller died as long as there is the job, a search."""
        group = self._groups[name]
        if group.placement is not None:
            remove_placement_group(group.placement)
            group.placement = None

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

    async def is_over(self, trial: int) -> bool:
        """Whether nothing of this trial is to be trained: it was stopped, or trained to its end."""
        channel = self._channels[trial]
        return channel.stopped or channel.closed

    async def close(self, trial: int) -> None:
        """Nobody trains this trial any more."""
        self._channels[trial].close()


@contextmanager
def running_exchange() -> Iterator[ActorHandle]:
    """An exchange on the head of the Ray that this process is connected to."""
    exchange: ActorHandle = ray.remote(num_cpus=0, resources=ON_HEAD)(Exchange).remote()  # type: ignore[assignment]
    try:
        yield exchange
    finally:
        ray.kill(exchange)
