"""Which parameters made the difference: PED-ANOVA on the study as Optuna sees it.

Watanabe et al., "PED-ANOVA", IJCAI 2023, https://arxiv.org/abs/2304.10255: how far the distribution of a parameter
among the best tenth of the trials is from that among all. Unlike fANOVA it asks only who is good, so that figures of
trials that were stopped early, which are too high, do no harm as long as these trials are not among the best.
"""

from __future__ import annotations

import warnings
from collections import Counter

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from mtlsearch.search.report.chart import BASELINE, Axis, Bars, Chart, Panel
from mtlsearch.search.report.section import Section, short_names
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.study.pareto import cost

#: trials below which the best tenth is one or two, and importances are chance
ENOUGH_TRIALS = 20
#: trials from which the best tenth is five, which Optuna's authors advise
_SOUND_TRIALS = 50
_SHOWN = 20


def section(study: StudyRecord) -> Section:
    count = len(study.scored)
    notes, panels = [], []
    if count < ENOUGH_TRIALS:
        notes.append(
            f"{count} trials with figures are too few: importances are of the best tenth, and take at least "
            f"{ENOUGH_TRIALS} trials to be worth looking at."
        )
    else:
        if count < _SOUND_TRIALS:
            notes.append(f"Of {count} trials; below {_SOUND_TRIALS} the best tenth is small and the order is rough.")
        panels = [_panel(study, name) for name in study.objectives]
    return Section(
        key="importances",
        title="Importances",
        reading=(
            "The longer the bar, the more the best tenth of the trials differ from all in this parameter (PED-ANOVA); "
            f"a parameter of one option counts by how often the best have it, and from {ENOUGH_TRIALS} trials on."
        ),
        notes=notes,
        charts=[Chart("importances", "Importances", tuple(panels))] if panels else [],
    )


def importances(study: StudyRecord, objective: str) -> dict[str, float]:
    """Parameter -> its share, which sum to 1, the largest first, for one objective; of parameters of enough trials."""
    mode = study.objectives[objective]
    distributions = {name: parameter.distribution for name, parameter in study.space.parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # as many good trials as trials: all alike, equal importances
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        replay = optuna.create_study()
        for trial in study.scored:
            own = {name: distributions[name] for name in trial.point}
            value = cost(figure(trial, objective), mode)
            replay.add_trial(optuna.trial.create_trial(params=trial.point, distributions=own, value=value))
        found = get_param_importances(replay, evaluator=PedAnovaImportanceEvaluator())
    count = Counter(name for trial in study.scored for name in trial.point)
    kept = {name: share for name, share in found.items() if count[name] >= ENOUGH_TRIALS}
    total = sum(kept.values()) or 1.0
    return {name: share / total for name, share in kept.items()}


def _panel(study: StudyRecord, objective: str) -> Panel:
    found = list(importances(study, objective).items())[:_SHOWN][::-1]
    short = short_names([name for name, _ in found])
    names = tuple((float(row), short[name]) for row, (name, _) in enumerate(found))
    bars = Bars([share for _, share in found], BASELINE)
    height = 110 + 24 * len(found)
    return Panel(f"for {objective}", Axis("share"), Axis(ticks=names), (bars,), wide=True, height=height)
