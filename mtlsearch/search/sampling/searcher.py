"""Ray Tune's Searcher over Optuna's ask and tell.

Ray's own OptunaSearch leaves a trial with a missing or NaN objective running for ever, tells a crashed trial as
complete, and samples what a starting point leaves out. Here a crash or NaN is told as failed, a stopped trial is
told the figures of its best epoch, and a starting point is the point exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher

from mtlsearch.errors import InputError
from mtlsearch.search.plan.constraints import DRAWS, Checker
from mtlsearch.search.plan.settings import GridSampler
from mtlsearch.search.plan.space import Point
from mtlsearch.search.sampling.asking import Asker
from mtlsearch.search.study.budget import Budget
from mtlsearch.search.study.requests import Request, Requests
from mtlsearch.search.study.stops import out_of_budget
from mtlsearch.search.study.study import Study, TrialState
from mtlsearch.training.config import RunConfig

#: trials that fail one after the other, and none before them that did not, after which the rest would fail too
_HOPELESS = 5
Launch = Callable[[TrialState], dict[str, Any]]
"""called when a trial is registered, before it starts; returns what the trainable gets"""


class _StatelessSearcher(Searcher):
    """A searcher that Ray may pickle and snapshot for a restore of its own: the journal is the state, not that."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing that the journal does not hold."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a study is continued from its journal")


class StudySearcher(_StatelessSearcher):
    """Suggests what a kill left unfinished, then the baselines, then what users ask for, then what the sampler draws.

    Optuna is told what the study learned from another one, and of a study that is continued every trial that has ended;
    the sampler's generator then starts from another seed than at first, so that it does not draw the same points again.
    """

    def __init__(self, study: Study, launch: Launch, budget: Budget | None = None) -> None:
        plan, settings = study.plan, study.plan.settings
        name, mode = settings.first_objective
        super().__init__(metric=name, mode=mode)
        self._study, self._launch = study, launch
        self._budget = budget or Budget(settings, study.usage)
        self._requests = Requests(study.folder)
        trials = study.of_phase("search")
        self._checker = Checker(settings.constraints)
        self._asker = Asker(plan.space, settings, drawn=len(trials))
        for point, figures in study.learned:
            self._asker.tell(self._asker.ask(point)[0], figures)
        self._tell_ended(trials)
        self.unfinished = deque(trial for trial in trials if trial.status == "running" and not trial.postponed)
        """trials that were under way when the study was killed and have not gone on yet"""
        request = self._requests.next_trial()
        if request is not None and trials and trials[-1] in self.unfinished and trials[-1].point == request.point:
            self._requests.taken(request)  # a kill came between its registration and this
        # one whose time ran out has said nothing yet of what the others are measured against
        begun = {trial.label for trial in trials if not out_of_budget(trial)}
        self._baselines = deque(baseline for baseline in plan.baselines if baseline.name not in begun)
        tried = [trial.point for trial in trials] + [baseline.point for baseline in plan.baselines]
        tried += [point for point, _ in study.learned]
        known = {frozenset(point.items()) for point in tried}
        points: Iterable[Point] = plan.space.grid() if isinstance(settings.sampler, GridSampler) else ()
        self._grid = (point for point in points if frozenset(point.items()) not in known and self._allowed(point))
        self._open: dict[str, optuna.Trial] = {}
        self._failed, self._ended = 0, 0
        self._aside = {trial.number for trial in study.postponed("search")}
        self._proven = any(trial.status in ("finished", "stopped") for trial in trials)
        self.ended_by = ""
        """why no more trials are suggested although fewer than asked for have begun, in words"""

    def suggest(self, trial_id: str) -> Any:
        if used_up := self._budget.used_up:
            self.ended_by = used_up
            return Searcher.FINISHED
        if self.unfinished:
            trial = self.unfinished.popleft()
            self._open[trial_id] = self._ask(trial.point)[0]
            return self._launch(trial)
        study = self._study
        if self.ended_by or study.count("search") >= study.plan.settings.num_samples:
            return Searcher.FINISHED
        if failed := self._hopeless():
            self.ended_by = f"the first {failed} trials all failed"
            return Searcher.FINISHED
        baseline = self._baselines.popleft() if self._baselines else None
        request = self._next_request() if baseline is None else None
        asked_for = baseline or request
        decided = asked_for.point if asked_for is not None else next(self._grid, None)
        drawn = self._draw() if decided is None else self._ask(decided)
        if drawn is None:
            return Searcher.FINISHED
        asked, config = drawn[0], drawn[1].tree()
        if baseline is not None and config != baseline.config.tree():
            raise AssertionError(f"the first trials do not resolve to the baseline {baseline.name}")
        trial = study.add_trial("search", baseline.name if baseline else "", config, asked.params)
        if request is not None:
            self._requests.taken(request)
        self._open[trial_id] = asked
        return self._launch(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        figures = {key.removeprefix("best/"): value for key, value in (result or {}).items() if key.startswith("best/")}
        useful = self._asker.tell(self._open.pop(trial_id), None if error else figures)
        self._ended, self._failed = self._ended + 1, self._failed + (not useful)

    def _hopeless(self) -> int:
        """How many trials have ended since the search began or went on, where all ever failed and they are enough to
        give up; else 0. One that ran out of memory beside others has not ended."""
        put_aside = sum(trial.number not in self._aside for trial in self._study.postponed("search"))
        failed, ended = self._failed - put_aside, self._ended - put_aside
        enough = min(_HOPELESS, self._study.plan.settings.num_samples)
        return failed if not self._proven and failed == ended >= enough else 0

    def _next_request(self) -> Request | None:
        """The first that is asked for and may be: the space and the constraints may have changed since."""
        while (request := self._requests.next_trial()) is not None:
            fault = self._fault(request.point)
            if not fault:
                return request
            self._requests.refuse(request, fault)
        return None

    def _fault(self, point: Point) -> str:
        plan = self._study.plan
        try:
            config = plan.config_of(plan.space.at(point))
            known = plan.point_of(config.tree(), "it")
        except (InputError, KeyError, ValueError) as error:
            return str(error) if isinstance(error, InputError) else f"it is no point of the space: {error}"
        return self._checker.fault(config) if known == point else "it has parameters that the space does not have"

    def _draw(self) -> tuple[optuna.Trial, RunConfig] | None:
        """What the sampler draws, the first that satisfies the constraints; None where none of many does."""
        if isinstance(self._study.plan.settings.sampler, GridSampler):
            self.ended_by = "every point of the grid that satisfies the constraints has been tried"
            return None
        fault = ""
        for _ in range(DRAWS):
            asked, config = self._ask(None)
            fault = self._checker.fault(config)
            if not fault:
                return asked, config
            self._asker.tell(asked, None)
        self.ended_by = f"none of {DRAWS} points that were drawn satisfies the constraints, the last because {fault}"
        return None

    def _allowed(self, point: Point) -> bool:
        plan = self._study.plan
        return not self._checker.fault(plan.config_of(plan.space.at(point)))

    def _ask(self, point: Point | None) -> tuple[optuna.Trial, RunConfig]:
        """A trial of Optuna's at `point`, or where its sampler says, and the config there."""
        asked, tree = self._asker.ask(point)
        return asked, self._study.plan.config_of(tree)

    def _tell_ended(self, trials: Iterable[TrialState]) -> None:
        for trial in trials:
            if trial.status != "running":
                asked, _ = self._asker.ask(trial.point)
                self._asker.tell(asked, None if trial.status == "failed" else trial.best)


class QueueSearcher(_StatelessSearcher):
    """Hands out trials that are decided already, in order."""

    def __init__(self, queue: Sequence[Callable[[], dict[str, Any]]]) -> None:
        super().__init__()
        self._queue = list(queue)

    def suggest(self, trial_id: str) -> Any:
        return self._queue.pop(0)() if self._queue else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned from these trials."""
