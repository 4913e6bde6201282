"""Optuna's ask and tell over a search space: what a running study and a simulated one have in common."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

from mtlsearch.search.distributions import Options, Range
from mtlsearch.search.pareto import Figures
from mtlsearch.search.samplers import make_sampler
from mtlsearch.search.settings import SearchSettings
from mtlsearch.search.space import Point, Space
from mtlsearch.training.merge import Tree


class Asker:
    """Asks the sampler of a search's settings for points of `space`, and tells it what came of them.

    drawn: trials that the search has already, from whose draws the sampler's own are independent.
    """

    def __init__(self, space: Space, settings: SearchSettings, drawn: int = 0) -> None:
        self._space, self._objectives = space, settings.objectives
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            directions=["minimize" if mode == "min" else "maximize" for mode in settings.objectives.values()],
            sampler=make_sampler(settings, drawn),
        )

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
        self._study.tell(asked, values, state=OptunaState.FAIL if values is None else None)
        return values is not None

    def tell_elsewhere(self, asked: optuna.Trial, point: Point, figures: Figures | None) -> None:
        """What came of `point`, which was tried in the place of the one that was asked."""
        values = self._values(figures)
        if values is not None:
            own = self._study.get_trials(deepcopy=False)[asked.number].system_attrs  # a genetic sampler's generation
            kinds = {name: parameter.distribution for name, parameter in self._space.parameters() if name in point}
            made = optuna.trial.create_trial(params=point, distributions=kinds, values=values, system_attrs=dict(own))
            self._study.add_trial(made)
        self._study.tell(asked, state=OptunaState.FAIL)

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
