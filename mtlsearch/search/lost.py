"""Why a trial was lost that did not say so itself, in a line."""

from __future__ import annotations

from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError


def reason_of(error: object) -> str:
    """The reason behind what Ray gave a trial up for."""
    for cause in _causes(error):
        if isinstance(cause, OutOfMemoryError):
            return "its worker was killed because the machine's memory ran out; run fewer trials at a time"
        if isinstance(cause, (ActorDiedError, RayActorError, WorkerCrashedError)):
            return "its worker process died: killed from outside, for want of memory, or by a crash of native code"
    return (str(error).strip().splitlines() or ["the worker died"])[-1]


def _causes(error: object) -> list[object]:
    """The error, and those of a worker group's workers, which Ray Train wraps."""
    failures = getattr(error, "worker_failures", {}).values()
    return [error, *failures, *(getattr(failure, "health_check_failure", None) for failure in failures)]
