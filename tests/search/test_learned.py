from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.sampling.learned import learn_from
from mtlsearch.search.sampling.searcher import StudySearcher
from mtlsearch.search.study.study import Study
from tests.search.studies import EPOCHS, Writer

pytestmark = pytest.mark.usefixtures("at_root")

SPACE = "examples/own_space.yaml"


def plan(*overrides: str, **search: Any) -> Any:
    return load_plan(SPACE, [f"training.epochs={EPOCHS}", *overrides], search)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    written = Writer(tmp_path / "old", num_samples=30, confirm={"seeds": 0})
    written.trial([(1.0, 1.0)] * EPOCHS, label="own_problem")
    for step in range(1, 21):  # the smaller the learning rate, the better
        rate = 10 ** (-3 + 2 * step / 20)
        written.trial([(rate, rate)] * EPOCHS, written.point(optimizer__lr=rate))
    written.trial([(0.5, 0.5)] * 2, written.point(model__width=50), end="stopped")
    written.trial([], written.point(), end="failed", reason="it broke")
    written.trial([(float("nan"), 0.5)], written.point())
    return written.folder


def test_trials_that_are_points_of_the_new_space_are_learned_from(old: Path) -> None:
    lessons = learn_from(old, plan())
    assert len(lessons.trials) == 22
    assert lessons.trials[1][1] == {
        "val/frequency_error": pytest.approx(10**-2.9),
        "val/phase_error": pytest.approx(10**-2.9),
    }
    assert "1 left out: no figure for val/frequency_error" in "\n".join(lessons.lines())
    narrower = learn_from(old, plan("optimizer={lr: {loguniform: [0.001, 0.01]}}"))
    assert len(narrower.trials) == 12, "the baseline, ten up to 0.01 and the stopped one"
    assert any("outside loguniform" in line for line in narrower.lines())


def test_trials_of_another_length_are_of_no_use(old: Path) -> None:
    with pytest.raises(InputError, match=r"none of its trials is of use .*epochs"):
        learn_from(old, load_plan(SPACE, ["training.epochs=3"]))


def test_a_sampler_draws_where_the_old_study_found_good_points(old: Path, tmp_path: Path) -> None:
    def rates(learned: list[Any], name: str) -> list[float]:
        study = Study.create(tmp_path, plan(start_with=[], num_samples=12), name, learned=learned)
        searcher = StudySearcher(study, lambda trial: {"trial": trial})
        drawn = [searcher.suggest(str(step))["trial"].config["optimizer"]["lr"] for step in range(12)]
        study.close()
        reopened = Study.reopen(study.folder, study.plan)
        assert reopened.learned == [(point, figures) for point, figures in learned]
        reopened.close()
        return sorted(drawn)

    blind, taught = rates([], "blind"), rates(learn_from(old, plan()).trials, "taught")
    assert taught[6] < blind[6] / 2
