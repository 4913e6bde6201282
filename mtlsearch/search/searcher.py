"""Ray Tune's Searcher over Optuna's ask and tell.

Ray's own OptunaSearch leaves a trial with a missing or NaN objective running for ever, tells a crashed trial as
complete, and samples what a starting point leaves out. Here a crash or NaN is told as failed, a stopped trial is
told the figures of its best epoch, and a starting point is the point exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState
from ray.tune.search import Searcher

from mtlsearch.search.distributions import Options, Range
from mtlsearch.search.samplers import make_sampler
from mtlsearch.search.settings import GridSampler
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
    """Suggests the baselines first, then what the sampler asks for, and registers each trial with the study."""

    def __init__(self, study: Study, launch: Launch) -> None:
        settings = study.plan.settings
        name, mode = settings.first_objective
        super().__init__(metric=name, mode=mode)
        self._study, self._launch = study, launch
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna.create_study(
            directions=["minimize" if mode == "min" else "maximize" for mode in settings.objectives.values()],
            sampler=make_sampler(settings),
        )
        self._open: dict[str, optuna.Trial] = {}
        first = [baseline.point for baseline in study.plan.baselines]
        points = study.plan.space.grid() if isinstance(settings.sampler, GridSampler) else iter(())
        self._rest = (point for point in points if point not in first)

    def suggest(self, trial_id: str) -> Any:
        plan, number = self._study.plan, len(self._study.of_phase("search"))
        if number >= plan.settings.num_samples:
            return Searcher.FINISHED
        baseline = plan.baselines[number] if number < len(plan.baselines) else None
        decided = baseline.point if baseline is not None else next(self._rest, None)
        if decided is not None:
            self._optuna.enqueue_trial(decided)
        asked = self._optuna.ask()
        tree = plan.space.resolve(lambda name, parameter: _suggest(asked, name, parameter))
        config = plan.config_of(tree).tree()
        if baseline is not None and config != baseline.config.tree():
            raise AssertionError(f"trial {number} does not resolve to the baseline {baseline.name}")
        trial = self._study.add_trial("search", baseline.name if baseline else "", config, asked.params)
        self._open[trial_id] = asked
        return self._launch(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        asked = self._open.pop(trial_id)
        names = self._study.plan.settings.objectives
        values = [(result or {}).get(f"best/{name}", math.nan) for name in names]
        if error or not all(math.isfinite(value) for value in values):
            self._optuna.tell(asked, state=OptunaState.FAIL)
        else:
            self._optuna.tell(asked, values)


class QueueSearcher(_StatelessSearcher):
    """Hands out trials that are decided already, in order."""

    def __init__(self, queue: Sequence[Callable[[], dict[str, Any]]]) -> None:
        super().__init__()
        self._queue = list(queue)

    def suggest(self, trial_id: str) -> Any:
        return self._queue.pop(0)() if self._queue else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned from these trials."""


def _suggest(trial: optuna.Trial, name: str, parameter: Range | Options) -> Any:
    distribution = parameter.distribution
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(parameter, Options)
    return trial.suggest_categorical(name, parameter.labels)
