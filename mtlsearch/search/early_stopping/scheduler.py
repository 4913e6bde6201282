"""A stopping rule as a scheduler of Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mtlsearch.search.early_stopping.rule import StoppingRule
from mtlsearch.search.study.stops import EARLY


class RuleScheduler(FIFOScheduler):
    """Stops trials as the rule says, but those that are exempt, which it only learns from, and those that users ask to
    stop, or that time has run out for. A NaN stops nothing here: such a trial fails by itself.

    why_stop: called with a trial's number after each of its epochs; says why it is to stop, "" where it is not.
    """

    def __init__(self, rule: StoppingRule, why_stop: Callable[[int], str]) -> None:
        super().__init__()
        self._rule, self._why_stop = rule, why_stop
        self._seen: dict[int, int] = {}
        self.reasons: dict[int, str] = {}
        """why trials were stopped, by number"""

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune starts waiting trials by itself, in order. FIFOScheduler looks at all trials in every step."""
        return

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        job = trial.config["job"]
        if "epoch" not in result or result["epoch"] <= self._seen.get(job.number, job.reported):
            return TrialScheduler.CONTINUE  # an epoch twice: its worker died and began again where its checkpoint was
        self._seen[job.number] = int(result["epoch"])
        figures = {name: value for name, value in result.items() if "/" in name and _is_number(value)}
        stops = self._rule.stops(job.number, int(result["epoch"]), figures)
        if int(result["epoch"]) >= job.config["training"]["epochs"]:  # it ends by itself
            return TrialScheduler.CONTINUE
        reason = EARLY if stops and not job.exempt else self._why_stop(job.number)
        if not reason:
            return TrialScheduler.CONTINUE
        self.reasons[job.number] = reason
        return TrialScheduler.STOP


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
