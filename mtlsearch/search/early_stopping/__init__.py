"""Early stopping: rules without Ray, by the settings of a search, and the one scheduler that asks them."""

from __future__ import annotations

from mtlsearch.search.early_stopping.halving import Hyperband, SuccessiveHalving
from mtlsearch.search.early_stopping.median import MedianRule
from mtlsearch.search.early_stopping.rule import Never, StoppingRule
from mtlsearch.search.early_stopping.scheduler import RuleScheduler
from mtlsearch.search.plan.settings import ASHA, Median, MultiObjectiveASHA, SearchSettings
from mtlsearch.search.plan.settings import Hyperband as HyperbandSettings


def make_rule(settings: SearchSettings, epochs: int) -> StoppingRule:
    """The rule of a search whose longest trial has so many epochs."""
    chosen, (name, mode) = settings.early_stopping, settings.first_objective
    if isinstance(chosen, MultiObjectiveASHA):
        return SuccessiveHalving(settings.objectives, chosen.grace_epochs, chosen.reduction_factor, epochs)
    if isinstance(chosen, HyperbandSettings):
        return Hyperband(
            {name: mode}, chosen.grace_epochs, chosen.reduction_factor, epochs, chosen.brackets, settings.seed
        )
    if isinstance(chosen, ASHA):  # last, since the others' settings are ASHA's too
        return SuccessiveHalving({name: mode}, chosen.grace_epochs, chosen.reduction_factor, epochs)
    if isinstance(chosen, Median):
        return MedianRule(name, mode, chosen.grace_epochs, chosen.min_trials)
    return Never()


__all__ = [
    "Figures",
    "Hyperband",
    "MedianRule",
    "Never",
    "RuleScheduler",
    "StoppingRule",
    "SuccessiveHalving",
    "make_rule",
]
