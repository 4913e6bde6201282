from __future__ import annotations

from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from mtlsearch.search.trials.lost import killed_for_memory, reason_of


def test_of_a_group_the_worker_that_was_struck_is_named_and_not_those_that_missed_it() -> None:
    missed = RuntimeError("gloo: Connection closed by peer")
    raised = WorkerGroupError("two failed", {0: missed, 1: ZeroDivisionError("no such thing")})
    assert reason_of(raised) == "ZeroDivisionError: no such thing"
    died = WorkerHealthCheckFailedError("no answer", ActorDiedError())
    assert reason_of(WorkerGroupError("two failed", {0: missed, 1: died})).startswith("its worker process died")
    assert reason_of(WorkerGroupError("one failed", {0: missed})) == f"RuntimeError: {missed}"


def test_a_worker_that_was_ended_for_want_of_memory_is_told_from_others() -> None:
    killed = WorkerHealthCheckFailedError("no answer", OutOfMemoryError("the node is low on memory"))
    group = WorkerGroupError("one failed", {1: killed})
    assert killed_for_memory(group) and "the machine's memory ran out" in reason_of(group)
    assert not killed_for_memory(
        WorkerGroupError("one failed", {1: WorkerHealthCheckFailedError("", ActorDiedError())})
    )


def test_without_a_word_it_still_says_something() -> None:
    assert reason_of("") == "the worker died"
