"""The phases of a study over a running Ray: search, confirmation, full size, report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from mtlsearch.search import tables
from mtlsearch.search.early_stopping import RuleScheduler, StoppingRule, make_rule
from mtlsearch.search.executors import Executor, ExecutorLost
from mtlsearch.search.judging import confirm, proxy
from mtlsearch.search.judging.weights import Weights
from mtlsearch.search.judging.winner import candidates
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.preparing import prepare
from mtlsearch.search.recorder import Observer, Recorder, clear_up
from mtlsearch.search.sampling.searcher import QueueSearcher, StudySearcher
from mtlsearch.search.storage.study_storage import StudyStorage
from mtlsearch.search.study.budget import Budget
from mtlsearch.search.study.requests import Requests
from mtlsearch.search.study.stops import BY_HAND, EARLY, out_of, stop_reason
from mtlsearch.search.study.study import CONFIRMATION, OWED, WINNER, Phase, Study, TrialState
from mtlsearch.search.tracked import TrackedStudy
from mtlsearch.search.trials.trainable import TrialJob
from mtlsearch.search.words import number
from mtlsearch.training.checkpoint import BEST
from mtlsearch.training.problem import Problem
from mtlsearch.training.record import BEST_RECORD, RECORD
from mtlsearch.training.yaml_files import write_text


@dataclass(frozen=True)
class SearchOutcome:
    """What a study came to. `winner` is None where no trial ran to its end."""

    study: Study
    winner: TrialState | None
    confirmed: tuple[confirm.Confirmed, ...]
    interrupted: bool


class Phases:
    """The phases of one study over one running Ray."""

    def __init__(
        self,
        plan: SearchPlan,
        study: Study,
        tracked: TrackedStudy,
        executor: Executor,
        console: Console,
        storage: StudyStorage | None = None,
    ) -> None:
        self.plan, self.study, self.tracked = plan, study, tracked
        self.executor, self.console, self.storage = executor, console, storage

    def run(self, problem: Problem) -> SearchOutcome:
        whole = self._sample()
        self.study.write_leaderboard()
        self._settle()
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
        missing = settings.num_samples - self.study.ended("search") - len(self.study.postponed("search"))
        ended_by = ""
        budget, requests = Budget(settings, self.study.usage), Requests(self.study.folder)

        def why_stop(trial_number: int) -> str:
            if requests.stopped(trial_number):
                return BY_HAND
            return out_of(budget.out_of) if budget.out_of else ""

        if missing > 0:
            self.study.begin_search(self.executor.resources.trial_gpus)
            searcher = StudySearcher(self.study, lambda trial: self._launch(trial, exempt=bool(trial.label)), budget)
            scheduler = RuleScheduler(rule, why_stop)
            self._execute(self.executor, "search", searcher, scheduler, missing, scheduler.reasons)
            if budget.out_of:
                for trial in searcher.unfinished:
                    self._stop(trial, out_of(budget.out_of))
            if ended_by := searcher.ended_by:
                self.study.end_search(ended_by)
                self.console.print(f"\nthe search ended before its {settings.num_samples} trials: {ended_by}")
        if not budget.out_of:
            scheduler = RuleScheduler(rule, why_stop)
            self._train_alone("search", scheduler, scheduler.reasons)
        if budget.out_of:
            for trial in self.study.postponed("search"):
                self._stop(trial, out_of(budget.out_of))
        begun = len(self.study.of_phase("search"))
        return self.study.ended("search") >= (begun if ended_by else settings.num_samples)

    def _execute(
        self,
        executor: Executor,
        phase: str,
        searcher: Searcher,
        scheduler: TrialScheduler,
        trials: int,
        stopped: Mapping[int, str] | None = None,
    ) -> None:
        resources = executor.resources
        share = "" if resources == executor.alone().resources else resources.share
        with self._table() as table:
            observers: list[Observer] = [self.tracked, Weights(self.study), table]
            recorder = Recorder(self.study, observers, stopped, share, self.storage)
            try:
                executor.run(phase, searcher, scheduler, recorder, trials)
            except ExecutorLost as reason:
                self.console.print(f"\nthe search cannot go on here: {reason}")

    def _train_alone(
        self,
        phase: Phase,
        scheduler: TrialScheduler,
        stopped: Mapping[int, str] | None = None,
        score_test: bool = False,
    ) -> None:
        """Goes on with the trials of a phase that ran out of memory, one at a time, when all others are done: not where
        some are left, because the phase was interrupted."""
        due = self.study.postponed(phase)
        if not due or len(due) < sum(trial.status == "running" for trial in self.study.of_phase(phase)):
            return
        executor = self.executor.alone()
        if phase == "search":
            self.study.begin_search(executor.resources.trial_gpus)
        self.console.print(f"\ntraining {len(due)} alone, {executor.resources}: memory ran out beside others")
        queue = [lambda trial=trial: self._launch(trial, bool(trial.label), score_test) for trial in due]
        self._execute(executor, f"{phase}-alone", QueueSearcher(queue), scheduler, len(queue), stopped)

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
        """Ends a trial that is under way, by the study's account, and is not to go on."""
        self.study.end_trial(trial.number, "stopped", stop_reason(why, len(trial.history)))
        clear_up(self.study, trial, self.storage)
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
        prepare([config for _, config in runs], self.plan.name, self.console)
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

        due = [run for run in runs if _due(state := begun(*run)) and not (state and state.postponed)]
        if due:
            queue = [lambda run=run: start(*run) for run in due]
            self._execute(self.executor, phase, QueueSearcher(queue), FIFOScheduler(), len(queue))
        self._train_alone(phase, FIFOScheduler(), score_test=score_test)
        self._settle()
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
            storage=self.storage.trial_uri(trial.number) if self.storage else "",
        )
        return {"job": job}

    def _settle(self) -> None:
        """A phase is over: the study's copy, where it has one, is to have all of it."""
        if self.storage is not None:
            self.storage.settle()

    def _table(self) -> tables.TrialTable:
        return tables.TrialTable(self.console, self.plan, self.study.trials)

    def _keep(self, winner: TrialState) -> None:
        """The winner's record and weights beside the leaderboard."""
        folder = self.study.trial_folder(winner.number)
        for name, kept in ((RECORD, BEST_RECORD), (BEST, WINNER)):
            if not (folder / name).exists():  # removed when it was far from winning, by other settings
                (self.study.folder / kept).unlink(missing_ok=True)
                if (folder / OWED).exists():
                    self.console.print(
                        f"the weights of trial {winner.number} lie at the storage: they come by --resume"
                    )
                    continue
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
        write_text(self.study.folder / CONFIRMATION, confirm.confirmation_csv(runs, trivial))
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
