"""Executors: where trials run. Each takes a searcher, a scheduler and a recorder, and runs trials to their end."""

from __future__ import annotations

from pathlib import Path

from mtlsearch.search.executors.executor import Executor
from mtlsearch.search.executors.inline import Inline
from mtlsearch.search.executors.resources import Resources


def make_executor(resources: Resources, scratch: Path) -> Executor:
    """The executor that `resources` are for. scratch: a folder for Ray's own files, which all nodes see."""
    if resources.executor == "inline":
        return Inline(resources, scratch)
    from mtlsearch.search.executors.ray_train import RayTrain  # slow to import

    return RayTrain(resources, scratch)


__all__ = ["Executor", "Inline", "make_executor"]
