from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.plan.constraints import DRAWS, Checker, check_baselines
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.plan.settings import Constraints
from mtlsearch.search.sampling.searcher import StudySearcher
from mtlsearch.search.study.study import Study, TrialState
from mtlsearch.training.recipes import load_run_config

pytestmark = pytest.mark.usefixtures("at_root")

SPACE = "examples/own_space.yaml"


def narrow(config: dict[str, Any]) -> bool:
    """A predicate as a user writes one."""
    return bool(config["model"]["width"] < 20)


def breaks(config: dict[str, Any]) -> bool:
    return bool(config["model"]["depth"] < 20)


def parameters(width: int) -> int:
    return 32 * width + width + width * width + width + 3 * width + 3


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Any]:
    opened: list[Study] = []

    def make(plan: SearchPlan) -> StudySearcher:
        study = Study.create(tmp_path, plan, f"study{len(opened)}")
        opened.append(study)
        return StudySearcher(study, lambda trial: {"trial": trial})

    yield make
    for study in opened:
        study.close()


def suggested(searcher: StudySearcher, count: int) -> list[TrialState]:
    found = [searcher.suggest(str(step)) for step in range(count)]
    return [one["trial"] for one in found if one != Searcher.FINISHED]


def test_sizes_and_predicates_are_checked_of_a_config() -> None:
    config = load_run_config("examples/own_problem.yaml")
    assert Checker(Constraints()).fault(config) == ""
    assert Checker(Constraints(max_params=parameters(32))).fault(config) == ""
    assert f"has {parameters(32):,} parameters, above" in Checker(Constraints(max_params=parameters(32) - 1)).fault(
        config
    )
    assert "macs, above 1,000" in Checker(Constraints(max_macs=1000)).fault(config)
    assert Checker(Constraints(predicate="tests.search.test_constraints:narrow")).fault(config).endswith("refuses it")


def test_only_what_satisfies_the_constraints_is_suggested(studies: Any) -> None:
    limits = {"max_params": parameters(20), "predicate": "tests.search.test_constraints:narrow"}
    plan = load_plan(SPACE, [], {"constraints": limits, "start_with": [], "sampler": "random", "num_samples": 12})
    widths = [trial.config["model"]["width"] for trial in suggested(studies(plan), 12)]
    assert len(widths) == 12
    assert max(widths) < 20


def test_a_baseline_that_violates_them_is_an_error_before_any_work() -> None:
    plan = load_plan(SPACE, [], {"constraints": {"max_params": 100}})
    with pytest.raises(InputError, match=r"own_problem violates .* its model has 2,2"):
        check_baselines(plan)


def test_where_nothing_satisfies_them_the_search_ends_and_says_why(studies: Any) -> None:
    plan = load_plan(SPACE, [], {"constraints": {"max_params": 10}, "start_with": [], "sampler": "random"})
    searcher = studies(plan)
    assert suggested(searcher, 2) == []
    assert f"none of {DRAWS} points" in searcher.ended_by
    assert "parameters, above 10" in searcher.ended_by


def test_a_grid_leaves_out_what_violates_them_and_ends(studies: Any) -> None:
    overrides = ["model={width: {grid: [10, 15, 40]}}", "optimizer={lr: 0.01}", "schedule={name: cosine}"]
    constraints = {"predicate": "tests.search.test_constraints:narrow"}
    plan = load_plan(SPACE, overrides, {"constraints": constraints, "start_with": [], "sampler": "grid"})
    searcher = studies(plan)
    widths = [trial.config["model"]["width"] for trial in suggested(searcher, 10)]
    assert sorted(widths) == sorted([10, 15] * 3)
    assert "grid" in searcher.ended_by


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.at_all:function", "cannot be imported"),
        ("tests.search.test_constraints:absent", "has no function 'absent'"),
    ],
)
def test_a_predicate_that_cannot_be_called_is_named(path: str, words: str) -> None:
    with pytest.raises(InputError, match=r"constraints\.predicate") as error:
        Checker(Constraints(predicate=path)).fault(load_run_config("examples/own_problem.yaml"))
    assert words in str(error.value)


def test_what_cannot_be_checked_is_a_violation_and_ends_no_search() -> None:
    config = load_run_config("examples/own_problem.yaml")
    fault = Checker(Constraints(predicate="tests.search.test_constraints:breaks")).fault(config)
    assert fault == "it cannot be checked: KeyError: 'depth'"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.own_problem.Waves.example", lambda self: 1 // 0)
        assert "ZeroDivisionError" in Checker(Constraints(max_params=10)).fault(config)


def test_a_predicates_path_must_read_module_and_function() -> None:
    with pytest.raises(InputError, match=r"constraints\.predicate"):
        load_plan(SPACE, [], {"constraints": {"predicate": "narrow"}})


def test_after_five_failures_and_nothing_else_the_search_ends(studies: Any) -> None:
    plan = load_plan(SPACE, [], {"start_with": [], "num_samples": 20})
    searcher = studies(plan)
    for step in range(5):
        assert searcher.suggest(str(step)) != Searcher.FINISHED
        searcher.on_trial_complete(str(step), error=True)
    assert searcher.suggest("5") == Searcher.FINISHED
    assert searcher.ended_by == "the first 5 trials all failed"


def test_trials_put_aside_for_memory_have_not_failed(tmp_path: Path) -> None:
    study = Study.create(tmp_path, load_plan(SPACE, [], {"start_with": [], "num_samples": 20}), "study")
    searcher = StudySearcher(study, lambda trial: {"trial": trial})
    for step in range(8):
        number = searcher.suggest(str(step))["trial"].number
        study.postpone_trial(number, "ran out of memory beside 1 other")
        searcher.on_trial_complete(str(step))
    assert searcher.suggest("8") != Searcher.FINISHED
    assert not searcher.ended_by
    study.close()


def test_one_trial_that_did_not_fail_keeps_the_search_going(studies: Any) -> None:
    searcher = studies(load_plan(SPACE, [], {"start_with": [], "num_samples": 20}))
    good = {"best/val/frequency_error": 0.5, "best/val/phase_error": 0.5}
    for step in range(8):
        assert searcher.suggest(str(step)) != Searcher.FINISHED
        searcher.on_trial_complete(str(step), good if step == 2 else None, error=step != 2)
    assert searcher.suggest("8") != Searcher.FINISHED


def test_a_baseline_whose_time_ran_out_is_asked_for_again(tmp_path: Path) -> None:
    plan = load_plan(SPACE)
    study = Study.create(tmp_path, plan, "study")
    searcher = StudySearcher(study, lambda trial: {"trial": trial})
    assert searcher.suggest("0")["trial"].label == "own_problem"
    study.end_trial(0, "stopped", "out of time after epoch 1")
    study.close()
    again = Study.reopen(study.folder, plan)
    trial = StudySearcher(again, lambda trial: {"trial": trial}).suggest("0")["trial"]
    assert (trial.number, trial.label) == (1, "own_problem")
    again.close()
