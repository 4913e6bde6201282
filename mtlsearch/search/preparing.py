"""What is checked and made ready before the first trial of a search starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtlsearch.errors import InputError
from mtlsearch.search.executors.resources import Demand, Node, Resources, plan_trials
from mtlsearch.search.plan.constraints import check_baselines
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.study.budget import check_budget
from mtlsearch.training.folders import check_name
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.progress import progressing
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.storage import RemoteFolder

#: room for the records and checkpoints of a study of small models; a full disk later fails a trial with that reason
_NEEDED_BYTES = 500e6


def check_search(plan: SearchPlan, results: Path, name: str | None) -> None:
    """Checks all that can be checked before any work.

    Raises:
        InputError: something that was given cannot be used.
    """
    check_baselines(plan)
    check_results(results)
    check_name(results, name)


def check_storage(storage: RemoteFolder, console: Console) -> None:
    """Raises StorageError where the storage cannot be used; says beforehand that it is asked, which can take long."""
    console.print(f"storage: asking {storage}", soft_wrap=True)
    storage.check()


def check_resources(plan: SearchPlan, demand: Demand, nodes: Sequence[Node]) -> Resources:
    """What a trial of the search gets.

    Raises:
        InputError: a trial can never run on these nodes, or its GPU hours not be counted.
    """
    resources = plan_trials(demand, plan.settings.num_samples, nodes)
    check_budget(plan.settings, resources.trial_gpus)
    return resources


def prepare(trees: Iterable[Mapping[str, Any]], source: str, console: Console) -> Problem:
    """Makes ready the data sets of these configs before trials start, and returns the first one's problem."""
    prepared: dict[str, Problem] = {}
    for tree in trees:
        config = parse_run_config(tree, source)
        key = f"{config.problem} {tree.get('data')}"
        if key not in prepared:
            problem = find_problem(config.problem)(config)
            with progressing(console, "preparing data") as progress:
                problem.prepare(progress)
            prepared[key] = problem
    return next(iter(prepared.values()))


def check_results(results: Path) -> None:
    """That a study's folder can be written and has room, before anything is rendered or trained."""
    there = next(parent for parent in [results.absolute(), *results.absolute().parents] if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"results folder {results} cannot be written ({error.strerror}); give --results") from None
    free = shutil.disk_usage(there).free
    if free < _NEEDED_BYTES:
        raise InputError(
            f"{there} has {free / 1e6:.0f} MB free and a study may need {_NEEDED_BYTES / 1e6:.0f} MB; "
            "free some, or give --results on another disk"
        )
