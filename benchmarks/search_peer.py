"""syne-tune's multi-fidelity searches in our simulator, for benchmarks/search_quality.py.

BOHB (Falkner et al., ICML 2018, https://arxiv.org/abs/1807.01774), with asynchronous successive halving, and ASHA with
conformalized quantile regression (Salinas et al., ICML 2023, https://arxiv.org/abs/2305.03623). Its spaces have no
conditional parameters, so that it sees every parameter always.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHACQR, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

from mtlsearch.search.plan.distributions import Options, Range
from mtlsearch.search.plan.space import Space
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.orders import PointDistances
from mtlsearch.search.study.pareto import Figures

logging.getLogger("syne_tune").setLevel(logging.ERROR)

SCHEDULERS = {"syne-tune BOHB": BOHB, "syne-tune ASHA + CQR": ASHACQR}


class SyneTune:
    """Order and stopping rule of a simulated search at once, with syne-tune's defaults."""

    def __init__(self, name: str, curves: Sequence[Curve], space: Space, metric: str, seed: int) -> None:
        np.random.seed(seed)  # its scheduler draws from the global generator
        self._curves, self._metric = curves, metric
        self._parameters = dict(space.parameters())
        domains = {name: _domain(parameter) for name, parameter in self._parameters.items()}
        epochs = curves[0].epochs
        self._scheduler = SCHEDULERS[name](domains, metric=metric, time_attr="epoch", max_t=epochs, random_seed=seed)
        self._points = PointDistances(space, [curve.point for curve in curves])
        self._free = np.ones(len(curves), bool)
        self._trials: list[Trial] = []
        self._numbers: dict[int, int] = {}

    def next(self) -> Curve | None:
        if not self._free.any():
            return None
        config = self._scheduler.suggest().config
        # of a point, only what its own options have
        asked: dict[str, Any] = {}
        for name, value in config.items():
            if all(asked.get(key) == label for key, label in _above(name, self._parameters)):
                asked[name] = value
        place = int(np.where(self._free, self._points.to(asked), np.inf).argmin())
        self._free[place] = False
        trial = Trial(len(self._trials), {**config, **self._curves[place].point}, datetime.now())
        self._trials.append(trial)
        self._numbers[self._curves[place].number] = trial.trial_id
        self._scheduler.on_trial_add(trial)
        return self._curves[place]

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        result = {self._metric: figures[self._metric], "epoch": epoch}
        return bool(self._scheduler.on_trial_result(self._trials[trial], result) == SchedulerDecision.STOP)

    def ended(self, curve: Curve, figures: Figures | None) -> None:
        if figures is None:
            self._scheduler.on_trial_error(self._trials[self._numbers[curve.number]])


def _above(name: str, parameters: dict[str, Range | Options]) -> list[tuple[str, str]]:
    """The options that a parameter hangs on: `optimizer.adamw.lr` on `optimizer` being `adamw`."""
    return [
        (key, label)
        for key, parameter in parameters.items()
        if isinstance(parameter, Options)
        for label in parameter.labels
        if name.startswith(f"{key}.{label}.")
    ]


def _domain(parameter: Range | Options) -> Any:
    if isinstance(parameter, Options):
        return config_space.choice(list(parameter.labels))
    kind, (low, high) = parameter.distribution, parameter.ends
    if isinstance(kind, IntDistribution):
        return config_space.lograndint(low, high) if kind.log else config_space.randint(low, high)
    assert isinstance(kind, FloatDistribution)
    return config_space.loguniform(low, high) if kind.log else config_space.uniform(low, high)
