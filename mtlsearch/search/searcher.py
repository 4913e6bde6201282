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

from mtlsearch.search.asking import Asker
from mtlsearch.search.requests import Requests
from mtlsearch.search.settings import GridSampler
from mtlsearch.search.space import Point
from mtlsearch.search.study import Study, TrialState

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

    Of a study that is continued, Optuna is told every trial that has ended; the sampler's generator starts from another
    seed than at first, so that it does not draw the same points again.
    """

    def __init__(self, study: Study, launch: Launch) -> None:
        plan, settings = study.plan, study.plan.settings
        name, mode = settings.first_objective
        super().__init__(metric=name, mode=mode)
        self._study, self._launch = study, launch
        self._requests = Requests(study.folder)
        trials = study.of_phase("search")
        self._asker = Asker(plan.space, settings, drawn=len(trials))
        self._tell_ended(trials)
        self._unfinished = deque(trial for trial in trials if trial.status == "running")
        self._baselines = deque(plan.baselines[sum(bool(trial.label) for trial in trials) :])
        known = [trial.point for trial in trials] + [baseline.point for baseline in plan.baselines]
        points: Iterable[Point] = plan.space.grid() if isinstance(settings.sampler, GridSampler) else ()
        self._grid = (point for point in points if point not in known)
        self._open: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        if self._unfinished:
            trial = self._unfinished.popleft()
            self._open[trial_id] = self._ask(trial.point)[0]
            return self._launch(trial)
        study = self._study
        if len(study.of_phase("search")) >= study.plan.settings.num_samples:
            return Searcher.FINISHED
        baseline = self._baselines.popleft() if self._baselines else None
        decided = baseline.point if baseline is not None else self._requests.next_trial() or next(self._grid, None)
        asked, config = self._ask(decided)
        if baseline is not None and config != baseline.config.tree():
            raise AssertionError(f"the first trials do not resolve to the baseline {baseline.name}")
        trial = study.add_trial("search", baseline.name if baseline else "", config, asked.params)
        self._open[trial_id] = asked
        return self._launch(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        figures = {key.removeprefix("best/"): value for key, value in (result or {}).items() if key.startswith("best/")}
        self._asker.tell(self._open.pop(trial_id), None if error else figures)

    def _ask(self, point: Point | None) -> tuple[optuna.Trial, dict[str, Any]]:
        """A trial of Optuna's at `point`, or where its sampler says, and the complete config there."""
        asked, tree = self._asker.ask(point)
        return asked, self._study.plan.config_of(tree).tree()

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
