"""A config rehearsed in a process of its own, which holds what a process of a search does and can die without harm."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.training import environment
from mtlsearch.training.config import RunConfig
from mtlsearch.training.loop import TrainingDiverged
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.rehearsal import Rehearsal, rehearse


def rehearse_apart(config: RunConfig, folder: Path, threads: int) -> Rehearsal | str:
    """The rehearsal of a config, or why it failed, be it by the process's death. folder: see `rehearse`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(theirs, config.tree(), str(folder), threads), daemon=True)
    process.start()
    theirs.close()
    try:
        outcome: Rehearsal | str = ours.recv()
    except EOFError:
        process.join()
        outcome = f"its process ended with code {process.exitcode}, as where memory is short"
    process.join()
    ours.close()
    return outcome


def _in_process(connection: Connection, tree: dict[str, object], folder: str, threads: int) -> None:
    import ray  # noqa: F401 - never started; a trial's process has it in memory too

    try:
        environment.set_threads(threads)
        connection.send(rehearse(parse_run_config(tree, "dry run"), Path(folder)))
    except (TrainingDiverged, InputError) as fault:
        connection.send(str(fault))
    except Exception as fault:  # whatever a model may do, the others are timed and this one's reason is shown
        connection.send(f"{type(fault).__name__}: {fault}")
