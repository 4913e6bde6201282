"""Early stopping as Ray Tune schedulers."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from mtlsearch.search.settings import ASHA, SearchSettings


class ExemptingASHA(AsyncHyperBandScheduler):
    """ASHA that learns from exempt trials and never stops them."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["job"].exempt else decision


def make_scheduler(settings: SearchSettings, max_epochs: int) -> TrialScheduler:
    """The scheduler of a search whose longest trial has `max_epochs`."""
    if isinstance(settings.early_stopping, ASHA):
        name, mode = settings.first_objective
        return ExemptingASHA(
            time_attr="epoch",
            metric=name,
            mode=mode,
            # a trial that reaches its last epoch ends by itself; it is not stopped
            max_t=max_epochs + 1,
            grace_period=min(settings.early_stopping.grace_epochs, max_epochs),
            reduction_factor=settings.early_stopping.reduction_factor,
        )
    return FIFOScheduler()
