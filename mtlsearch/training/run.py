"""One training run from config to record: what `python -m mtlsearch.train` and `.reproduce` call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlsearch.training import environment
from mtlsearch.training.config import RunConfig
from mtlsearch.training.loop import Report, TrainingResult, first_objective, train
from mtlsearch.training.problem import Problem, Progress, find_problem
from mtlsearch.training.record import RECORD, RunRecord, load_record
from mtlsearch.training.workers import Workers


@dataclass(frozen=True)
class FinishedRun:
    problem: Problem
    result: TrainingResult
    record: RunRecord


def run_training(
    config: RunConfig,
    *,
    directory: Path | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    on_step: Progress | None = None,
    threads: int | None = None,
    stop_after: int | None = None,
    objective: tuple[str, str] | None = None,
    must_be_finite: Sequence[str] = (),
    reported: int | None = None,
    micro_batch: int | None = None,
    record: bool = True,
) -> FinishedRun:
    """Prepares the data, trains, and writes record.yaml beside the checkpoints if `directory` is given.

    Where torch.distributed is set up, all its processes call this; see `train`.

    Args:
        progress: of preparing the data.
        on_step: of the training, after each micro-batch.
        threads: torch threads; all CPUs of this process by default.
        stop_after: end after so many epochs of the config's own schedule.
        reported, micro_batch: see `train`.
        record: False leaves record.yaml to the caller.

    Raises:
        InputError: before any work, if the config or the data cannot be used.
        TrainingDiverged: a loss or the objective became NaN or infinite.
    """
    environment.set_threads(threads or environment.available_cpus())
    problem = find_problem(config.problem)(config)
    problem.prepare(progress)
    objective = objective or first_objective(problem)
    result = train(
        problem,
        config,
        report=report,
        directory=directory,
        objective=objective,
        stop_after=stop_after,
        on_step=on_step,
        must_be_finite=must_be_finite,
        reported=reported,
        micro_batch=micro_batch,
    )
    if record and directory is not None and (directory / RECORD).exists():
        written = load_record(directory / RECORD)
        if written.history == result.history:  # nothing was left to train: the record is of the run as it was
            return FinishedRun(problem, result, written)
    written = RunRecord(config.tree(), environment.describe(type(problem)), result.history, objective)
    if record and directory is not None and Workers().first:
        written.save(directory / RECORD)
    return FinishedRun(problem, result, written)
