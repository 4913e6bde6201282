"""Optuna's ask and tell over a search space: what a running study and a simulated one have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from mtlsearch.search.plan.distributions import Options, Range
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.plan.space import Point, Space
from mtlsearch.search.sampling.samplers import make_sampler, remembered
from mtlsearch.search.study.pareto import Figures, best_first, costs_of
from mtlsearch.training.merge import Tree

#: of what a sampler remembers, the share that is kept for being the best
_BEST = 0.05
#: beyond what it is to remember, before it forgets
_SLACK = 1.25


class Asker:
    """Asks the sampler of a search's settings for points of `space`, and tells it what came of them.

    Samplers whose work grows with the trials that they know are given a bounded number to know: the best, and of the
    others some at even steps.

    drawn: trials that the search has already, from whose draws the sampler's own are independent.
    """

    def __init__(self, space: Space, settings: SearchSettings, drawn: int = 0) -> None:
        self._space, self._objectives = space, settings.objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sampler, self._most = make_sampler(settings, drawn), remembered(settings)
        self._study = self._fresh_study()

    def ask(self, point: Point | None = None) -> tuple[optuna.Trial, Tree]:
        """A trial of Optuna's at `point`, or where its sampler says, and the run config tree there."""
        if point is not None:
            self._study.enqueue_trial(point)
        asked = self._study.ask()
        return asked, self._space.resolve(lambda name, parameter: _suggest(asked, name, parameter))

    def tell(self, asked: optuna.Trial, figures: Figures | None) -> bool:
        """The objectives of a trial's best epoch; None, or a figure that is missing or not finite: it failed.

        Returns whether it did not.
        """
        values = self._values(figures)
        ended = asked.study.tell(asked, values, state=OptunaState.FAIL if values is None else None)
        if asked.study is not self._study:  # it was asked before the sampler forgot
            self._study.add_trial(ended)
        self._forget()
        return values is not None

    def tell_elsewhere(self, asked: optuna.Trial, point: Point, figures: Figures | None) -> None:
        """What came of `point`, which was tried in the place of the one that was asked."""
        values = self._values(figures)
        if values is not None:
            own = asked.study.get_trials(deepcopy=False)[asked.number].system_attrs  # a genetic sampler's generation
            kinds = {name: parameter.distribution for name, parameter in self._space.parameters() if name in point}
            made = optuna.trial.create_trial(params=point, distributions=kinds, values=values, system_attrs=dict(own))
            self._study.add_trial(made)
        asked.study.tell(asked, state=OptunaState.FAIL)
        self._forget()

    def _fresh_study(self) -> optuna.Study:
        modes = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        directions = [modes[mode] for mode in self._objectives.values()]
        return optuna.create_study(directions=directions, sampler=self._sampler)

    def _forget(self) -> None:
        """Has the sampler know a part of the trials alone, once there are many more."""
        trials = self._study.get_trials(deepcopy=False)
        if self._most is None or len(trials) <= self._most * _SLACK:
            return
        complete = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
        kept = self._best(complete)[: round(_BEST * self._most)]
        numbers = {trial.number for trial in kept}
        others = [trial for trial in complete if trial.number not in numbers]
        steps = np.linspace(0, len(others) - 1, min(self._most - len(kept), len(others))).round().astype(int)
        self._study = self._fresh_study()
        self._study.add_trials(sorted([*kept, *(others[step] for step in steps)], key=lambda trial: trial.number))

    def _best(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        figures = [dict(zip(self._objectives, trial.values, strict=True)) for trial in trials]
        return [trials[row] for row in best_first(costs_of(figures, self._objectives))] if trials else []

    def _values(self, figures: Figures | None) -> list[float] | None:
        values = [(figures or {}).get(name, math.nan) for name in self._objectives]
        return values if all(math.isfinite(value) for value in values) else None


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
