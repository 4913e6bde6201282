"""One training by several workers: what `python -m mtlsearch.train --num-workers` calls."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.search.executors.inline import running_ray, variables_set
from mtlsearch.search.executors.resources import Demand, plan_trials, this_machine
from mtlsearch.search.trials.exchange import running_exchange
from mtlsearch.search.trials.trainable import TrialJob
from mtlsearch.search.trials.worker_group import GroupRun, WorkerGroup, train_settings
from mtlsearch.training.checkpoint import LAST, load_last
from mtlsearch.training.config import RunConfig
from mtlsearch.training.environment import available_cpus
from mtlsearch.training.loop import Report, Row, TrainingDiverged, first_objective
from mtlsearch.training.problem import find_problem
from mtlsearch.training.record import RECORD, RunRecord


def train_in_group(
    config: RunConfig, *, workers: int, directory: Path, report: Report | None = None, threads: int | None = None
) -> RunRecord:
    """Trains `config` on this machine in `workers` processes, whose data is prepared, as a trial of a search is.

    Args:
        directory: where the checkpoints and record.yaml go; a last.pt found there is continued from.
        threads: torch threads of a worker; by default the CPUs of this process are shared out.

    Raises:
        InputError: so many workers do not fit.
        TrainingDiverged: the training failed on some worker, with its reason.
    """
    if workers * (threads or 1) > available_cpus():
        raise InputError(
            f"{workers} workers of {threads or 1} CPU are too many for the {available_cpus()} CPUs that this process "
            "may use; lower --num-workers or --threads"
        )
    cpus = threads or available_cpus() // workers
    resources = plan_trials(Demand("ray_train", 1, workers=workers, cpus_per_worker=cpus), 1, this_machine())
    objective = first_objective(find_problem(config.problem))
    last = directory / LAST
    seen = len(load_last(last)["history"]) if last.exists() else 0
    job = TrialJob(0, config.tree(), str(directory.absolute()), cpus, dict([objective]))
    history: list[Row] = []
    environment = {}
    with (
        tempfile.TemporaryDirectory(prefix="mtlsearch-ray-") as scratch,
        warnings.catch_warnings(),
        running_ray(resources),
        variables_set(train_settings()),
        running_exchange() as exchange,
    ):
        warnings.filterwarnings("ignore", module=r"ray\..*")
        run = GroupRun(WorkerGroup(workers, cpus, resources.gpus, scratch), exchange, job)
        while result := run.next():
            if "failure" in result:
                run.stop()
                raise TrainingDiverged(result["failure"])
            if "environment" in result:
                environment = result["environment"]
            elif result["epoch"] > len(history):  # else a worker died and began again where its checkpoint was
                history.append(result)
                if report is not None and len(history) > seen:
                    report(result)
        run.stop()
    record = RunRecord(config.tree(), environment, history, objective)
    record.save(directory / RECORD)
    return record
