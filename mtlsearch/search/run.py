"""A whole search: what `python -m mtlsearch.tune` calls."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from mtlsearch.errors import InputError
from mtlsearch.search import confirm, tables
from mtlsearch.search.early_stopping import make_scheduler
from mtlsearch.search.executors.inline import Inline, start_ray
from mtlsearch.search.executors.resources import Resources, plan_resources
from mtlsearch.search.plan import SearchPlan
from mtlsearch.search.recorder import Observer, Recorder
from mtlsearch.search.searcher import QueueSearcher, StudySearcher
from mtlsearch.search.study import Study, TrialState
from mtlsearch.search.tracked import TrackedStudy
from mtlsearch.search.trainable import TrialJob
from mtlsearch.search.winner import RULE, candidates
from mtlsearch.tracking import Tracker
from mtlsearch.training.checkpoint import BEST
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.progress import progressing
from mtlsearch.training.record import RECORD
from mtlsearch.training.recipes import parse_run_config

BEST_RECORD = "best.yaml"
WINNER = "winner.safetensors"
#: room that a study's checkpoints and records may need, and a little more
_NEEDED_BYTES = 500e6


@dataclass(frozen=True)
class SearchOutcome:
    """What a study came to. `winner` is None where no trial ran to its end."""

    study: Study
    winner: TrialState | None
    confirmed: tuple[confirm.Confirmed, ...]
    interrupted: bool


def run_search(
    plan: SearchPlan,
    *,
    results: Path,
    tracking_uri: str,
    name: str | None = None,
    address: str = "local",
    cpus_per_trial: int | None = None,
    concurrent: int | None = None,
    console: Console | None = None,
) -> SearchOutcome:
    """Searches, confirms, and leaves everything in a folder of its own under `results`.

    Raises:
        InputError: before any trial starts, where something that was given cannot be used.
    """
    console = console or Console()
    resources = plan_resources(plan.settings.num_samples, cpus_per_trial, concurrent)
    _check_room(results)
    problem = _prepare(plan, console)
    study = Study.create(results, plan, name)
    console.print(f"results: {study.folder.absolute()}", highlight=False, soft_wrap=True)
    tracker = Tracker(tracking_uri, lambda text: console.print(text, highlight=False))
    console.print(f"tracker: {tracking_uri}", highlight=False, soft_wrap=True)
    tracked = TrackedStudy(tracker, study)
    console.print(
        f"{plan.settings.num_samples} trials, {resources.concurrent} at a time with {resources.cpus} CPU each",
        highlight=False,
    )
    # Ray's own state is of no use after the study: the journal is the record
    scratch = Path(tempfile.mkdtemp(prefix="mtlsearch-ray-"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\..*")
            start_ray(resources, address)
            search = _Search(plan, study, tracked, Inline(resources, scratch), console)
            outcome = search.run(problem)
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        study.close()
        lost = tracker.close()
        if lost:
            console.print(f"tracker: {lost} entries could not be written; the study's folder holds them all")
    return outcome


class _Search:
    """The phases of one study over one running Ray."""

    def __init__(
        self, plan: SearchPlan, study: Study, tracked: TrackedStudy, executor: Inline, console: Console
    ) -> None:
        self.plan, self.study, self.tracked, self.executor, self.console = plan, study, tracked, executor, console

    def run(self, problem: Problem) -> SearchOutcome:
        whole = self._sample()
        ranked = candidates(self.study.of_phase("search"), self.plan.settings.objectives)
        if not ranked:
            self.tracked.finish(None, interrupted=not whole)
            return SearchOutcome(self.study, None, (), not whole)
        winner = ranked[0]
        self._keep(ranked)
        confirmed: tuple[confirm.Confirmed, ...] = ()
        if whole and self.plan.settings.confirm.seeds:
            chosen = confirm.choose(self.study, ranked)
            whole = self._confirm(chosen)
            confirmed = tuple(confirm.collect(self.study, chosen))
        if whole and confirmed:
            self._report(confirmed, problem)
        self.tracked.finish(winner, interrupted=not whole)
        return SearchOutcome(self.study, winner, confirmed, not whole)

    def _sample(self) -> bool:
        settings = self.plan.settings
        searcher = StudySearcher(self.study, lambda trial: self._launch(trial, exempt=bool(trial.label)))
        epochs = max(config["training"]["epochs"] for config in self.plan.probe_trees())
        with self._table() as table:
            recorder = Recorder(self.study, [self.tracked, table])
            return self.executor.run("search", searcher, make_scheduler(settings, epochs), recorder, settings.num_samples)

    def _confirm(self, chosen: Sequence[confirm.Candidate]) -> bool:
        seeds = confirm.fresh_seeds(self.plan.settings.seed, self.plan.settings.confirm.seeds)
        self.console.print(f"\nconfirming {', '.join(one.name for one in chosen)} on {len(seeds)} fresh seeds")

        def start(candidate: confirm.Candidate, seed: int) -> dict[str, Any]:
            config = {**candidate.trial.config, "seed": seed}
            trial = self.study.add_trial("confirm", candidate.name, config, {})
            return self._launch(trial, score_test=True)

        queue = [lambda one=one, seed=seed: start(one, seed) for seed in seeds for one in chosen]
        with self._table() as table:
            recorder = Recorder(self.study, [self.tracked, table])
            return self.executor.run("confirm", QueueSearcher(queue), FIFOScheduler(), recorder, len(queue))

    def _launch(self, trial: TrialState, exempt: bool = False, score_test: bool = False) -> dict[str, Any]:
        self.tracked.trial_registered(trial)
        job = TrialJob(
            number=trial.number,
            config=trial.config,
            directory=str(self.study.trial_folder(trial.number).absolute()),
            threads=self.executor.resources.cpus,
            objective=self.plan.settings.first_objective,
            score_test=score_test,
            exempt=exempt,
        )
        return {"job": job}

    def _table(self) -> tables.TrialTable:
        return tables.TrialTable(self.console, self.plan, self.study.trials)

    def _keep(self, ranked: Sequence[TrialState]) -> None:
        """The winner's record and weights beside the leaderboard; weights of trials that nobody needs go."""
        winner = ranked[0]
        folder = self.study.trial_folder(winner.number)
        shutil.copyfile(folder / RECORD, self.study.folder / BEST_RECORD)
        shutil.copyfile(folder / BEST, self.study.folder / WINNER)
        kept = {trial.number for trial in ranked[: max(3, self.plan.settings.confirm.top)]}
        for trial in self.study.of_phase("search"):
            if trial.number not in kept and not trial.label:
                (self.study.trial_folder(trial.number) / BEST).unlink(missing_ok=True)

    def _report(self, confirmed: tuple[confirm.Confirmed, ...], problem: Problem) -> None:
        trivial = {split: problem.trivial_metrics(split) for split in ("val", "test")}
        (self.study.folder / "confirmation.csv").write_text(confirmation_csv(confirmed, trivial))
        print_ = self.console.print
        print_()
        print_(tables.trial_table(self.plan, self.study.of_phase("search"), title="Trials of the search"))
        print_()
        print_(tables.confirmation_table(self.plan, confirmed, trivial))
        print_(f"\nWinner of the search: {confirmed[0].name}, by {RULE}.", highlight=False)
        better = confirm.reference(confirmed, dict(self.plan.settings.objectives))
        if better is not None and better is not confirmed[0]:
            for line in tables.verdict_lines(self.plan, confirmed[0], better):
                print_(f"  {line}", highlight=False, soft_wrap=True)


def confirmation_csv(
    confirmed: Sequence[confirm.Confirmed], trivial: Mapping[str, Mapping[str, float]]
) -> str:
    """Every confirmation run's validation and test metrics, and those of the constant prediction."""
    metrics = sorted(trivial["val"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "baseline", "seed", "trial", *(f"{s}/{m}" for s in ("val", "test") for m in metrics)])
    for one in confirmed:
        for position, run in enumerate(one.runs):
            figures = [one.values(metric, split)[position] for split in ("val", "test") for metric in metrics]
            writer.writerow([one.name, one.baseline, run.config["seed"], run.number, *figures])
    figures = [trivial[split][metric] for split in ("val", "test") for metric in metrics]
    writer.writerow(["constant prediction", "", "", "", *figures])
    return text.getvalue()


def _prepare(plan: SearchPlan, console: Console) -> Problem:
    """The data of every data set that the space can ask for, made ready before trials start."""
    prepared: dict[str, Problem] = {}
    for tree in plan.probe_trees():
        config = parse_run_config(tree, plan.name)
        key = f"{config.problem} {tree.get('data')}"
        if key not in prepared:
            problem = find_problem(config.problem)(config)
            with progressing(console, "preparing data") as progress:
                problem.prepare(progress)
            prepared[key] = problem
    return next(iter(prepared.values()))


def _check_room(results: Path) -> None:
    there = next(parent for parent in [results.absolute(), *results.absolute().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if free < _NEEDED_BYTES:
        raise InputError(
            f"{there} has {free / 1e6:.0f} MB free and a study may need {_NEEDED_BYTES / 1e6:.0f} MB; "
            "free some, or give --results on another disk"
        )
