"""Why a trial was lost that did not say so itself, in a line."""

from __future__ import annotations

from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError


def reason_of(error: object) -> str:
    """The reason behind what Ray gave a trial up for."""
    for cause in _causes(error):
        if _for_memory(cause):
            return "its worker was killed because the machine's memory ran out; run fewer trials at a time"
        if isinstance(cause, (ActorDiedError, RayActorError, WorkerCrashedError)):
            return "its worker process died: killed from outside, for want of memory, or by a crash of native code"
    lines = [f"{type(failure).__name__}: {_last_line(failure)}" for failure in _failures(error)]
    # the lost connections of others follow from what struck one
    return min(lines, key=lambda line: "onnection" in line) if lines else _last_line(error)


def killed_for_memory(error: object) -> bool:
    """Whether Ray ended a worker because its machine's memory ran out."""
    return any(_for_memory(cause) for cause in _causes(error))


def _for_memory(cause: object) -> bool:
    # an actor's death has no kind of its own for it
    return isinstance(cause, OutOfMemoryError) or (isinstance(cause, RayActorError) and "low on memory" in str(cause))


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["the worker died"])[-1]


def _causes(error: object) -> list[object]:
    """The error, and those of a worker group's workers, which Ray Train wraps."""
    failures = _failures(error)
    return [error, *failures, *(getattr(failure, "health_check_failure", None) for failure in failures)]


def _failures(error: object) -> list[object]:
    return list(getattr(error, "worker_failures", {}).values())
