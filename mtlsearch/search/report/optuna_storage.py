"""A study as a storage of Optuna's, for optuna-dashboard and for Optuna's own plots.

    optuna-dashboard results/STUDY/optuna.log

It is a copy: the journal is the record, and nothing is read back from here.
"""

from __future__ import annotations

import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from mtlsearch.search.report.source import StudyRecord
from mtlsearch.search.study.study import TrialState

STORAGE = "optuna.log"
#: a stopped trial is pruned: Optuna knows it by its course, and it has no final values
_STATES = {
    "finished": OptunaState.COMPLETE,
    "stopped": OptunaState.PRUNED,
    "failed": OptunaState.FAIL,
    "running": OptunaState.RUNNING,
}


def write_storage(study: StudyRecord) -> Path:
    """Writes the trials of the search, in their order, into a new optuna.log in the study's folder.

    Raises OSError where that cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    temporary = study.folder / f".{STORAGE}"
    temporary.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(temporary)))
    directions = [
        StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE for mode in study.objectives.values()
    ]
    identity = storage.create_new_study(directions, study.name)
    storage.set_study_user_attr(identity, "data", study.data)
    # the dashboard's names of the objectives
    storage.set_study_system_attr(identity, "study:metric_names", list(study.objectives))
    distributions = {name: parameter.distribution for name, parameter in study.space.parameters()}
    for trial in study.searched:
        storage.create_new_trial(identity, _frozen(study, trial, distributions))
    os.replace(temporary, study.folder / STORAGE)
    return study.folder / STORAGE


def _frozen(study: StudyRecord, trial: TrialState, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    figures = [trial.best.get(name, math.nan) for name in study.objectives]
    state = _STATES[trial.status]
    if state is OptunaState.COMPLETE and not all(map(math.isfinite, figures)):
        state = OptunaState.FAIL
    first = next(iter(study.objectives))
    begun, ended = study.spans[trial.number]
    about: dict[str, Any] = {"label": trial.label, "reason": trial.reason, "epochs": len(trial.history)}
    about |= {name: value for name, value in zip(study.objectives, figures) if math.isfinite(value)}
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,  # the storage gives it one
        state=state,
        value=None,
        values=figures if state is OptunaState.COMPLETE else None,
        params=dict(trial.point),
        distributions={name: distributions[name] for name in trial.point},
        user_attrs={key: value for key, value in about.items() if value != ""},
        system_attrs={},
        intermediate_values={int(row["epoch"]): row[first] for row in trial.history if first in row},
        datetime_start=datetime.fromtimestamp(begun),
        datetime_complete=None if state is OptunaState.RUNNING else datetime.fromtimestamp(ended),
    )
