"""Executors: where trials run. Each takes a searcher, a scheduler and a recorder, and runs trials to their end."""

from __future__ import annotations

from pathlib import Path

from mtlsearch.search.executors.executor import Executor, ExecutorLost
from mtlsearch.search.executors.inline import Inline
from mtlsearch.search.executors.resources import Resources
from mtlsearch.training.storage import RemoteFolder


def make_executor(resources: Resources, scratch: Path, shared: RemoteFolder | None = None) -> Executor:
    """The executor that `resources` are for.

    scratch: a folder of this node for Ray's own files; shared: one that all nodes reach, unless they all see `scratch`.
    """
    if resources.executor == "inline":
        return Inline(resources, scratch)
    from mtlsearch.search.executors.ray_train import RayTrain  # slow to import

    return RayTrain(resources, scratch, shared or RemoteFolder(scratch / "train"))


__all__ = ["Executor", "ExecutorLost", "Inline", "make_executor"]
