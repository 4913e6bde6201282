"""A stopping rule as a scheduler of Ray Tune."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mtlsearch.search.early_stopping.rule import StoppingRule


class RuleScheduler(FIFOScheduler):
    """Stops trials as the rule says, but those that are exempt, which it only learns from. A NaN stops nothing here:
    such a trial fails by itself."""

    def __init__(self, rule: StoppingRule) -> None:
        super().__init__()
        self._rule = rule

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        job = trial.config["job"]
        if "epoch" not in result:
            return TrialScheduler.CONTINUE
        figures = {name: value for name, value in result.items() if "/" in name and _is_number(value)}
        stops = self._rule.stops(job.number, int(result["epoch"]), figures)
        last = int(result["epoch"]) >= job.config["training"]["epochs"]
        return TrialScheduler.STOP if stops and not job.exempt and not last else TrialScheduler.CONTINUE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
