"""What runs in a trial: the training loop, reporting each epoch. The same code for every executor."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from mtlsearch.errors import InputError
from mtlsearch.search.plan.figures import cost_of, is_cost
from mtlsearch.search.trials.trial_files import TrialFiles, trial_files
from mtlsearch.training import environment
from mtlsearch.training.checkpoint import BEST, load_weights
from mtlsearch.training.config import RunConfig
from mtlsearch.training.costs import measure_costs
from mtlsearch.training.loop import TrainingDiverged, choose_device
from mtlsearch.training.memory import free_memory, ran_out_of_memory
from mtlsearch.training.problem import HasExample, Problem, ScoresSamples, find_problem
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.run import run_training
from mtlsearch.training.sample_scores import SCORES, save_scores
from mtlsearch.training.workers import Workers

Send = Callable[[dict[str, Any]], bool | None]
"""hands a result to the executor: {"environment": …}, each epoch's row, {"test": …} at the end, or {"failure": …,
"out_of_memory": …, "clean": whether its process can train another}. Returns True where the trial is to end there."""


@dataclass(frozen=True)
class TrialJob:
    """One trial, as it travels to the process that trains it."""

    number: int
    config: dict[str, Any]
    directory: str
    """where its checkpoints go, unless there is a `storage`"""
    threads: int
    objectives: dict[str, str]
    """metric -> "min" or "max"; the first decides the best epoch, and none may become NaN or infinite"""
    score_test: bool = False
    """score the best epoch's weights on the test split when training is over"""
    exempt: bool = False
    """never stopped early: a baseline, against which the rest is measured"""
    reported: int = 0
    """epochs that the study knows of already, of a trial that is continued"""
    storage: str = ""
    """URI of the trial's folder, where the study is kept at one: it is trained in a folder of its node then"""


def tune_trainable(config: dict[str, Any]) -> None:
    """A Tune function trainable. It stands here, so that a worker imports what training takes and no search."""
    run_trial(config["job"], tune.report)


def run_trial(job: TrialJob, send: Send) -> None:
    """Trains `job`; a diverged or otherwise failed training is sent as a failure with its reason.

    Where several processes train it together, all call this, and the first sends. A failure of the training is sent by
    any of them and raised, because the others may wait for its part; what else goes wrong is raised alone, because it
    may be no more than another worker's death.
    """
    workers = Workers()
    try:
        with trial_files(job.directory, job.storage) as files:
            _run_in(files, job, workers, send)
    except Exception as failure:  # whatever a model may do, the study goes on and says what happened
        known, short = isinstance(failure, (TrainingDiverged, InputError)), ran_out_of_memory(failure)
        if known or short or workers.size == 1:
            reason = str(failure) if known else f"{type(failure).__name__}: {failure}"
            send({"failure": reason, "out_of_memory": short, "clean": known and workers.size == 1})
        if workers.size > 1:
            raise
    finally:
        free_memory()


def _run_in(files: TrialFiles, job: TrialJob, workers: Workers, send: Send) -> None:
    config = parse_run_config(job.config, f"trial {job.number}")
    environment.set_threads(job.threads)
    if workers.first:
        send({"environment": environment.describe(find_problem(config.problem))})
    costs = _costs(config, job.objectives) if workers.first else {}

    def report(row: dict[str, float]) -> bool:
        if not workers.first:
            return False
        files.push()  # before the epoch is told: whoever goes on from there has it
        return bool(send({**row, **costs}))

    run = run_training(
        config,
        directory=files.folder,
        report=report,
        threads=job.threads,
        objective=next(iter(job.objectives.items())),
        must_be_finite=[name for name in job.objectives if not is_cost(name)],
        reported=job.reported,
        record=False,
    )
    if not workers.first or run.result.stopped_early:
        return
    if job.score_test:
        model = run.result.model
        model.load_state_dict(load_weights(files.folder / BEST).tensors)
        model.eval()
        _score_samples(run.problem, model, files.folder / SCORES)
    files.settle()
    if job.score_test:
        send({"test": run.problem.evaluate(run.result.model, "test")})


def _costs(config: RunConfig, objectives: Collection[str]) -> dict[str, float]:
    """What of the objectives does not change while the model trains, as every row of the trial carries it."""
    names = [cost_of(name) for name in objectives if is_cost(name)]
    if not names:
        return {}
    problem = find_problem(config.problem)(config)
    assert isinstance(problem, HasExample)  # the plan saw to it
    measured = measure_costs(problem, names, choose_device(config.training.device))
    return {f"{prefix}cost/{name}": value for name, value in measured.items() for prefix in ("", "best/")}


def _score_samples(problem: Problem, model: torch.nn.Module, path: Path) -> None:
    """Leaves a file with the figures of each sample, where the problem gives them."""
    if isinstance(problem, ScoresSamples):
        with torch.inference_mode():
            scored = {split: problem.sample_scores(model, split) for split in ("val", "test")}
        save_scores(path, {(split, name): one for split, own in scored.items() for name, one in own.items()})
