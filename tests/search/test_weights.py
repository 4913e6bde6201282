from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlsearch.search import load_plan
from mtlsearch.search.judging.weights import Weights
from mtlsearch.search.judging.winner import candidates, pareto_front
from mtlsearch.search.study.study import Study, TrialState
from mtlsearch.training.checkpoint import BEST

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    study = Study.create(tmp_path, load_plan("examples/own_space.yaml", [], {"confirm": {"top": 4}}), "study")
    yield study
    study.close()


def ended(study: Study, figures: tuple[float, float], label: str = "", phase: str = "search", status: str = "finished"):  # type: ignore[no-untyped-def]
    trial = study.add_trial(phase, label, study.plan.baselines[0].config.tree(), {})  # type: ignore[arg-type]
    (study.trial_folder(trial.number) / BEST).write_bytes(b"weights")
    names = study.plan.settings.objectives
    row = {"epoch": 1.0, "best/epoch": 1.0, **{f"best/{name}": value for name, value in zip(names, figures)}}
    study.add_epoch(trial.number, row)
    study.end_trial(trial.number, status)  # type: ignore[arg-type]
    return study.trials[trial.number]


def on_disk(study: Study) -> set[int]:
    return {number for number in study.trials if (study.trial_folder(number) / BEST).exists()}


def test_at_any_time_the_best_few_and_the_baselines_are_there(study: Study) -> None:
    rng = random.Random(0)
    weights = Weights(study)
    weights.trial_ended(ended(study, (1.0, 1.0), "own_problem"))
    for step in range(40):
        figures = rng.lognormvariate(0, 0.3), rng.lognormvariate(0, 0.3)
        weights.trial_ended(ended(study, figures))
        figures_of = {one.number: one.best for one in study.of_phase("search")}
        front = set(pareto_front(figures_of, study.plan.settings.objectives))
        assert on_disk(study) >= {0} | front
        assert len(on_disk(study) - front) <= 1 + 4 + 5, "the baseline, those to be confirmed, and some more"
        if step == 20:
            weights = Weights(study)  # the study was interrupted and goes on
    ranked = candidates(study.of_phase("search"), study.plan.settings.objectives)
    best = [trial.number for trial in ranked if not trial.label][:4]
    assert on_disk(study) >= {0, *best}


def test_who_cannot_win_keeps_nothing(study: Study) -> None:
    weights = Weights(study)
    trials: list[TrialState] = [
        ended(study, (0.1, 0.1), status="stopped"),
        ended(study, (0.1, 0.1), status="failed"),
        ended(study, (0.1, 0.1), "own_problem", phase="confirm"),
        ended(study, (0.1, 0.1), "own_problem", phase="full"),
    ]
    for trial in trials:
        weights.trial_ended(trial)
    assert on_disk(study) == set()
