"""A whole search: what `python -m mtlsearch.tune` calls."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from mtlsearch._imports import importing
from mtlsearch._masking import masked
from mtlsearch.search.executors import make_executor
from mtlsearch.search.executors.inline import running_ray
from mtlsearch.search.executors.resources import Demand, cluster_nodes, this_machine
from mtlsearch.search.phases import Phases, SearchOutcome
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.preparing import check_resources, check_search, check_storage, prepare
from mtlsearch.search.recorder import mend_records
from mtlsearch.search.sampling.learned import learn_from
from mtlsearch.search.storage.node_check import check_nodes
from mtlsearch.search.storage.study_storage import StudyStorage, check_new
from mtlsearch.search.study.study import Study
from mtlsearch.search.tracked import TrackedStudy
from mtlsearch.tracking.uri import check_uri
from mtlsearch.training.folders import own_folder
from mtlsearch.training.storage import RemoteFolder

if TYPE_CHECKING:
    from mtlsearch.tracking import Tracker


#: of folders for Ray's own state
_SCRATCH = ".mtlsearch-ray-"


def run_search(
    plan: SearchPlan,
    *,
    results: Path,
    tracking_uri: str,
    name: str | None = None,
    address: str = "local",
    demand: Demand = Demand(),  # noqa: B008 - frozen
    console: Console | None = None,
    resume: Path | None = None,
    from_study: Path | None = None,
    storage: RemoteFolder | None = None,
) -> SearchOutcome:
    """Searches, confirms, and leaves everything in a folder of its own under `results`.

    resume: the folder of a study that goes on, however it ended, in the place of a new one: no trial that ended is run
    again, and one that was under way continues from its last epoch. Where there is a storage, it is what
    `study_to_resume` gives.
    from_study: the folder of another study, whose trials the sampler is told as far as they are points of this space.
    storage: where a copy of the study is kept, in a folder of its name, through which the nodes of a cluster share it;
    without it they must all see `results`.
    demand: what a trial is to be given, as far as the machine or the cluster is not to decide that.

    Raises:
        InputError: before any trial starts, where something that was given cannot be used.
    """
    console = console or Console(markup=False, highlight=False)
    check_search(plan, results, name)
    if storage is not None:
        check_storage(storage, console)
        if name is not None:
            check_new(storage.join(name))
    check_uri(tracking_uri)
    lessons = learn_from(from_study, plan) if from_study is not None else None
    own = address == "local" and not ray.is_initialized()  # what a cluster has it says when it is asked
    resources = check_resources(plan, demand, this_machine()) if own else None
    console.print(f"tracker: {masked(tracking_uri)}", soft_wrap=True)
    with ExitStack() as scope:
        opening = scope.enter_context(ThreadPoolExecutor(1)).submit(_open_tracker, tracking_uri, console)
        scope.callback(_close_tracker, opening, console)
        # Ray's own state is of no use after the study: the journal is the record
        home = resume.parent if resume is not None else results
        shared = address != "local" and storage is None  # the folder, by every node of a cluster
        if shared:
            home.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=home)).absolute()
            scope.callback(shutil.rmtree, scratch, ignore_errors=True)
        else:
            scratch = scope.enter_context(own_folder(_SCRATCH)).absolute()
        scope.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"ray\..*")
        scope.enter_context(running_ray(resources, address, preload=plan.problem_modules()))
        if address != "local":
            check_nodes(storage, home)
        resources = resources or check_resources(plan, demand, cluster_nodes())
        # the data of all options; of a range over data, what lies between its ends is left to the trials
        problem = prepare(plan.probe_trees(), plan.name, console)
        tracker = opening.result()
        if resume is None:
            study = Study.create(
                results, plan, name, problem.describe_data(), lessons.trials if lessons is not None else ()
            )
        else:
            study = Study.reopen(resume, plan)
            mend_records(study)
        last = scope.enter_context(ExitStack())  # what follows the study's own end
        scope.callback(study.close)
        kept = None
        if storage is not None:
            copy = storage.join(study.folder.name)
            if resume is None:
                check_new(copy)
            kept = StudyStorage(copy, study, lambda text: console.print(text, soft_wrap=True), new=resume is None)
            last.callback(kept.close)
            console.print(f"storage: {copy}", soft_wrap=True)
        console.print(f"results: {study.folder.absolute()}", soft_wrap=True)
        console.print(f"{plan.settings.num_samples} trials, {resources}")
        if lessons is not None:
            console.print("\n".join(lessons.lines()), soft_wrap=True)
        if resume is not None:
            ended = study.ended("search") + study.ended("confirm")
            console.print(f"resumed: {ended} trials have ended, {len(study.trials) - ended} go on where they were")
        tracked = TrackedStudy(tracker, study)
        try:
            executor = make_executor(resources, scratch, kept.scratch if kept and address != "local" else None)
            return Phases(plan, study, tracked, executor, console, kept).run(problem)
        except BaseException:
            tracked.parent.end("FAILED")
            raise


def _open_tracker(uri: str, console: Console) -> Tracker:
    """In a thread of its own while Ray starts: MLflow takes a second to import, and a new database seconds to make."""
    with importing():
        from mtlsearch.tracking import Tracker
    return Tracker(uri, lambda text: console.print(text))


def _close_tracker(opening: Future[Tracker], console: Console) -> None:
    if opening.exception() is None and (lost := opening.result().close()):
        console.print(f"tracker: {lost} entries could not be written; the study's folder holds them all")
