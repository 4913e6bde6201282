"""A whole search: what `python -m mtlsearch.tune` calls."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from mtlsearch._imports import importing
from mtlsearch.errors import InputError
from mtlsearch.search import confirm, proxy, tables
from mtlsearch.search.budget import Budget, check_budget
from mtlsearch.search.constraints import check_baselines
from mtlsearch.search.early_stopping import RuleScheduler, StoppingRule, make_rule
from mtlsearch.search.executors import Executor, make_executor
from mtlsearch.search.executors.inline import running_ray
from mtlsearch.search.executors.resources import (
    Demand,
    Node,
    Resources,
    cluster_nodes,
    plan_trials,
    this_machine,
)
from mtlsearch.search.learned import learn_from
from mtlsearch.search.plan import SearchPlan
from mtlsearch.search.recorder import Recorder, write_record
from mtlsearch.search.requests import Requests
from mtlsearch.search.searcher import QueueSearcher, StudySearcher
from mtlsearch.search.stops import BY_HAND, EARLY, out_of, stop_reason
from mtlsearch.search.study import CONFIRMATION, WINNER, Phase, Study, TrialState
from mtlsearch.search.tracked import TrackedStudy
from mtlsearch.search.trainable import TrialJob
from mtlsearch.search.weights import Weights
from mtlsearch.search.winner import candidates
from mtlsearch.search.words import number
from mtlsearch.training.checkpoint import BEST, LAST
from mtlsearch.training.folders import check_name
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.progress import progressing
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.record import BEST_RECORD, RECORD
from mtlsearch.training.yaml_files import write_text

if TYPE_CHECKING:
    from mtlsearch.tracking import Tracker

#: room for the records and checkpoints of a study of small models; a full disk later fails a trial with that reason
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
    demand: Demand = Demand(),  # noqa: B008 - frozen
    console: Console | None = None,
    resume: Path | None = None,
    from_study: Path | None = None,
) -> SearchOutcome:
    """Searches, confirms, and leaves everything in a folder of its own under `results`.

    resume: the folder of a study that goes on, however it ended, in the place of a new one: no trial that ended is run
    again, and one that was under way continues from its last epoch.
    from_study: the folder of another study, whose trials the sampler is told as far as they are points of this space.
    demand: what a trial is to be given, as far as the machine or the cluster is not to decide that.

    Raises:
        InputError: before any trial starts, where something that was given cannot be used.
    """
    console = console or Console(markup=False, highlight=False)
    check_search(plan, results, name)
    lessons = learn_from(from_study, plan) if from_study is not None else None
    own = address == "local" and not ray.is_initialized()  # what a cluster has it says when it is asked
    resources = check_resources(plan, demand, this_machine()) if own else None
    console.print(f"tracker: {tracking_uri}", soft_wrap=True)
    with ExitStack() as scope:
        opening = scope.enter_context(ThreadPoolExecutor(1)).submit(_open_tracker, tracking_uri, console)
        scope.callback(_close_tracker, opening, console)
        # Ray's own state is of no use after the study: the journal is the record
        shared = None if address == "local" else results  # which every node of a cluster sees
        if shared is not None:
            shared.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".mtlsearch-ray-", dir=shared)).absolute()
        scope.callback(shutil.rmtree, scratch, ignore_errors=True)
        scope.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"ray\..*")
        scope.enter_context(running_ray(resources, address, preload=plan.problem_modules()))
        resources = resources or check_resources(plan, demand, cluster_nodes())
        # the data of all options; of a range over data, what lies between its ends is left to the trials
        problem = _prepare(plan.probe_trees(), plan.name, console)
        tracker = opening.result()
        if resume is None:
            study = Study.create(
                results, plan, name, problem.describe_data(), lessons.trials if lessons is not None else ()
            )
        else:
            study = Study.reopen(resume, plan)
        scope.callback(study.close)
        console.print(f"results: {study.folder.absolute()}", soft_wrap=True)
        console.print(f"{plan.settings.num_samples} trials, {resources}")
        if lessons is not None:
            console.print("\n".join(lessons.lines()), soft_wrap=True)
        if resume is not None:
            ended = study.ended("search") + study.ended("confirm")
            console.print(f"resumed: {ended} trials have ended, {len(study.trials) - ended} go on where they were")
        tracked = TrackedStudy(tracker, study)
        try:
            return _Search(plan, study, tracked, make_executor(resources, scratch), console).run(problem)
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


def check_search(plan: SearchPlan, results: Path, name: str | None) -> None:
    """Checks all that can be checked before any work.

    Raises:
        InputError: something that was given cannot be used.
    """
    check_baselines(plan)
    _check_results(results)
    check_name(results, name)


def check_resources(plan: SearchPlan, demand: Demand, nodes: Sequence[Node]) -> Resources:
    """What a trial of the search gets.

    Raises:
        InputError: a trial can never run on these nodes, or its GPU hours not be counted.
    """
    resources = plan_trials(demand, plan.settings.num_samples, nodes)
    check_budget(plan.settings, resources.trial_gpus)
    return resources


class _Search:
    """The phases of one study over one running Ray."""

    def __init__(
        self, plan: SearchPlan, study: Study, tracked: TrackedStudy, executor: Executor, console: Console
    ) -> None:
        self.plan, self.study, self.tracked = plan, study, tracked
        self.executor, self.console = executor, console

    def run(self, problem: Problem) -> SearchOutcome:
        whole = self._sample()
        self.study.write_leaderboard()
        settings = self.plan.settings
        ranked = candidates(self.study.of_phase("search"), settings.objectives, settings.winner)
        if not ranked:
            if whole:
                self._write_report(problem)
            self.tracked.finish(None, interrupted=not whole)
            return SearchOutcome(self.study, None, (), not whole)
        winner = ranked[0]
        self._keep(winner)
        confirmed: list[confirm.Confirmed] = []
        if whole and settings.confirm.seeds:
            chosen = confirm.choose(self.study.of_phase("search"), ranked, settings.confirm.top)
            seeds = confirm.fresh_seeds(settings.seed, settings.confirm.seeds)
            whole = self._confirm(chosen, seeds)
            runs = confirm.collect(self.study.trials.values(), chosen, seeds, self.study.folder)
            confirmed, rule = confirm.ranking(runs, settings)
            if whole:
                winner = confirmed[0].trial if confirmed else winner
                self._keep(winner)
                self._report(confirmed, runs, rule, problem)
        whole = whole and self._at_full_size(ranked)
        if whole:
            self._write_report(problem)
        self.tracked.finish(winner, interrupted=not whole)
        return SearchOutcome(self.study, winner, tuple(confirmed), not whole)

    def _sample(self) -> bool:
        settings = self.plan.settings
        epochs = max(config["training"]["epochs"] for config in self.plan.probe_trees())
        rule = make_rule(settings, epochs)
        self._replay(rule)
        missing = settings.num_samples - self.study.ended("search")
        ended_by = ""
        if missing > 0:
            self.study.begin_search(self.executor.resources.trial_gpus)
            budget, requests = Budget(settings, self.study.usage), Requests(self.study.folder)

            def why_stop(trial_number: int) -> str:
                if requests.stopped(trial_number):
                    return BY_HAND
                return out_of(budget.out_of) if budget.out_of else ""

            searcher = StudySearcher(self.study, lambda trial: self._launch(trial, exempt=bool(trial.label)), budget)
            scheduler = RuleScheduler(rule, why_stop)
            with self._table() as table:
                recorder = Recorder(self.study, [self.tracked, Weights(self.study), table], scheduler.reasons)
                self.executor.run("search", searcher, scheduler, recorder, missing)
            if budget.out_of:
                for trial in searcher.unfinished:
                    self._stop(trial, out_of(budget.out_of))
            if ended_by := searcher.ended_by:
                self.study.end_search(ended_by)
                self.console.print(f"\nthe search ended before its {settings.num_samples} trials: {ended_by}")
        begun = len(self.study.of_phase("search"))
        return self.study.ended("search") >= (begun if ended_by else settings.num_samples)

    def _replay(self, rule: StoppingRule) -> None:
        """Tells a fresh rule what happened before. A trial that it stopped just when the study was killed ends here."""
        stopped: dict[int, bool] = {}
        for trial_number, row in self.study.past_epochs:
            stopped[trial_number] = rule.stops(trial_number, int(row["epoch"]), row)
        for trial_number, stops in stopped.items():
            trial = self.study.trials[trial_number]
            whole = len(trial.history) >= trial.config["training"]["epochs"]
            if stops and trial.status == "running" and not trial.label and not whole:
                self._stop(trial, EARLY)

    def _stop(self, trial: TrialState, why: str) -> None:
        """Ends a trial that was under way when the study was killed and is not to go on."""
        self.study.end_trial(trial.number, "stopped", stop_reason(why, len(trial.history)))
        (self.study.trial_folder(trial.number) / LAST).unlink(missing_ok=True)
        if trial.history:
            write_record(self.study, trial)
        self.tracked.trial_ended(trial)

    def _confirm(self, chosen: Sequence[confirm.Candidate], seeds: Sequence[int]) -> bool:
        self.console.print(f"\nconfirming {', '.join(one.name for one in chosen)} on {len(seeds)} fresh seeds")
        runs = [(one.name, {**one.trial.config, "seed": seed}) for seed in seeds for one in chosen]
        return self._run_again("confirm", runs, score_test=True)

    def _at_full_size(self, ranked: Sequence[TrialState]) -> bool:
        """Trains what the proxy settings ask for, and says how far the search's order is that of the full size."""
        settings, searched = self.plan.settings, self.study.of_phase("search")
        chosen = proxy.choose_pairs(searched, ranked, settings)
        if not chosen:
            return True
        self.console.print(f"\ntraining {', '.join(one.name for one in chosen)} at full size")
        seed = confirm.fresh_seeds(settings.seed, 1)[0]
        runs = [(one.name, proxy.full_config(one, settings, seed)) for one in chosen]
        _prepare([config for _, config in runs], self.plan.name, self.console)
        whole = self._run_again("full", runs, score_test=False)
        if whole:
            pairs = proxy.collect_pairs(self.study.trials.values(), searched, settings)
            for one in proxy.fidelity(pairs, settings.objectives):
                over = f"over {one.pairs} configurations"
                self.console.print(f"  {one.objective}: rank correlation with full size {number(one.rho)} {over}")
                if one.warning:
                    self.console.print(f"  {one.warning}", soft_wrap=True)
        return whole

    def _run_again(self, phase: Phase, runs: Sequence[tuple[str, dict[str, Any]]], score_test: bool) -> bool:
        """Trains configs whole, each by its name, and says whether all came to an end."""

        def begun(name: str, config: dict[str, Any]) -> TrialState | None:
            known = (one for one in self.study.of_phase(phase) if one.label == name and one.config == config)
            return next(known, None)

        def start(name: str, config: dict[str, Any]) -> dict[str, Any]:
            trial = begun(name, config) or self.study.add_trial(phase, name, config, {})
            return self._launch(trial, score_test=score_test)

        due = [run for run in runs if _due(begun(*run))]
        if due:
            with self._table() as table:
                recorder = Recorder(self.study, [self.tracked, Weights(self.study), table])
                queue = [lambda run=run: start(*run) for run in due]
                self.executor.run(phase, QueueSearcher(queue), FIFOScheduler(), recorder, len(queue))
        return not any(_due(begun(*run)) for run in runs)

    def _launch(self, trial: TrialState, exempt: bool = False, score_test: bool = False) -> dict[str, Any]:
        self.tracked.trial_registered(trial)
        job = TrialJob(
            number=trial.number,
            config=trial.config,
            directory=str(self.study.trial_folder(trial.number).absolute()),
            threads=self.executor.resources.cpus,
            objectives=dict(self.plan.settings.objectives),
            score_test=score_test,
            exempt=exempt,
            reported=len(trial.history),
        )
        return {"job": job}

    def _table(self) -> tables.TrialTable:
        return tables.TrialTable(self.console, self.plan, self.study.trials)

    def _keep(self, winner: TrialState) -> None:
        """The winner's record and weights beside the leaderboard."""
        folder = self.study.trial_folder(winner.number)
        for name, kept in ((RECORD, BEST_RECORD), (BEST, WINNER)):
            if not (folder / name).exists():  # removed when it was far from winning, by other settings
                (self.study.folder / kept).unlink(missing_ok=True)
                again = f"python -m mtlsearch.train --config {self.study.folder / BEST_RECORD}"
                self.console.print(
                    f"the weights of trial {winner.number} were not kept; to train them again: {again}", soft_wrap=True
                )
                continue
            temporary = self.study.folder / f".{kept}"
            shutil.copyfile(folder / name, temporary)
            os.replace(temporary, self.study.folder / kept)

    def _report(
        self, confirmed: Sequence[confirm.Confirmed], runs: Sequence[confirm.Confirmed], rule: str, problem: Problem
    ) -> None:
        """Says what the confirmation came to. confirmed: in their order, of the `runs` those that are complete."""
        trivial = {split: problem.trivial_metrics(split) for split in ("val", "test")}
        write_text(self.study.folder / CONFIRMATION, confirmation_csv(runs, trivial))
        print_ = self.console.print
        print_()
        print_(tables.trial_table(self.plan, self.study.of_phase("search"), title="Trials of the search"))
        for one in runs:
            if not one.complete:
                print_(f"\n{one.name} takes no part: {one.why_incomplete}", soft_wrap=True)
        if not confirmed:
            print_("\nNot confirmed: no candidate came through all its seeds. What follows is the best of the search.")
            return
        print_()
        print_(tables.confirmation_table(self.plan, confirmed, trivial))
        winner = confirmed[0]
        print_(f"\nWinner: {winner.name}, by the means over the fresh seeds: {rule}.", soft_wrap=True)
        for other in confirmed[1:]:
            for line in tables.difference_lines(self.plan, winner, other):
                print_(f"  {line}", soft_wrap=True)
        print_(f"  {confirm.certainty(len(winner.runs))}", soft_wrap=True)

    def _write_report(self, problem: Problem) -> None:
        """report.html and its figures, unless the settings leave them out. They never cost a study its results."""
        if not self.plan.settings.report:
            return
        from mtlsearch.search.report import write_report  # slow to import, and needed once, at the end

        try:
            path = write_report(self.study.folder, problem)
        except Exception as error:
            again = f"python -m mtlsearch.report {self.study.folder}"
            self.console.print(f"\nno report: {type(error).__name__}: {error}\nto try again: {again}", soft_wrap=True)
        else:
            self.console.print(f"\nreport: {path.absolute()}", soft_wrap=True)


def _due(trial: TrialState | None) -> bool:
    """Whether a run has not begun, or was under way when the study was killed."""
    return trial is None or trial.status == "running"


def confirmation_csv(confirmed: Sequence[confirm.Confirmed], trivial: Mapping[str, Mapping[str, float]]) -> str:
    """Every confirmation run's validation and test metrics, and those of the constant prediction."""
    metrics = sorted(trivial["val"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [f"{split}/{metric}" for split in ("val", "test") for metric in metrics]
    writer.writerow(["name", "baseline", "seed", "trial", "status", *figures])
    for one in confirmed:
        for position, run in enumerate(one.runs):
            own = [one.values(f"val/{metric}", split)[position] for split in ("val", "test") for metric in metrics]
            writer.writerow([one.name, one.baseline, run.config["seed"], run.number, run.status, *own])
    constant = [trivial[split][metric] for split in ("val", "test") for metric in metrics]
    writer.writerow(["constant prediction", "", "", "", "", *constant])
    return text.getvalue()


def _prepare(trees: Iterable[Mapping[str, Any]], source: str, console: Console) -> Problem:
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


def _check_results(results: Path) -> None:
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
