"""An exchange of worker groups that notes how they start, train and end."""

from __future__ import annotations

from typing import Any

from benchmarks.search_cost.notes import note
from mtlsearch.search.trials.exchange import Exchange

GIVEN, CONTROLLED, JOINED = "job given to a group", "controller runs", "worker runs"
TAKEN, CLOSED, ENDED = "job taken by the worker", "job done", "group ended"


class NotedExchange(Exchange):
    """All processes of a group call it."""

    async def give(self, name: str, trial: int, job: bytes) -> bool:
        note(GIVEN)
        return await super().give(name, trial, job)

    async def announce(self, name: str, controller: Any) -> None:
        note(CONTROLLED)
        await super().announce(name, controller)

    async def join(self, name: str, rank: int, placement: Any) -> int:
        note(JOINED)
        return await super().join(name, rank, placement)

    async def job(self, name: str, rank: int, place: int) -> bytes | None:
        job = await super().job(name, rank, place)
        if job is not None:
            note(TAKEN)
        return job

    async def close(self, trial: int) -> None:
        note(CLOSED)
        await super().close(trial)

    async def ended(self, name: str) -> None:
        await super().ended(name)
        note(ENDED)
