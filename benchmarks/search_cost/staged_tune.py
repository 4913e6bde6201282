"""`python -m mtlsearch.tune` with notes of when its stages end: the same command, functions of it wrapped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from benchmarks.search_cost.notes import note

note("python runs")

from mtlsearch import _command  # noqa: E402
from mtlsearch import tune as command  # noqa: E402
from mtlsearch._imports import importing  # noqa: E402

with importing():
    import ray

    from mtlsearch.search import run
    from mtlsearch.search.executors import Executor
    from mtlsearch.search.phases import Phases
    from mtlsearch.search.plan import plan
    from mtlsearch.tracking import uri  # noqa: F401
note("imports")


def noted(owner: Any, name: str, what: str) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        finally:
            note(what)

    setattr(owner, name, wrapped)


noted(plan, "load_plan", "space checked")
noted(ray, "init", "Ray up")
noted(run, "_open_tracker", "tracker open")
noted(run, "prepare", "data ready")
noted(run, "TrackedStudy", "study and its run")
noted(Phases, "_launch", "trial handed to Ray")
noted(Executor, "run", "last trial recorded")
noted(ray, "shutdown", "Ray down")
noted(run, "_close_tracker", "tracker closed")

if __name__ == "__main__":
    sys.argv[0] = command.__file__
    _command.run("tune", command.main)
