from __future__ import annotations

from pathlib import Path

import pytest

from mtlsearch import strategies
from mtlsearch.errors import InputError
from mtlsearch.gradients import strategy_info
from mtlsearch.search.plan.plan import load_plan, shipped_spaces
from mtlsearch.search.study.study import study_files

pytestmark = pytest.mark.usefixtures("at_root")

SPACE = """
base: quick
space:
  strategy: {choice: [{name: pcgrad}, {name: weighted_sum}]}
  optimizer:
    choice:
      - {name: sgd, lr: {loguniform: [1.0e-4, 0.1]}, momentum: 0.9, weight_decay: 5.0e-4}
      - {name: adamw, lr: 0.004, weight_decay: 0.01}
  schedule: {choice: [{name: onecycle}, {name: multistep, milestones: [0.5, 0.625], gamma: 0.2, warmup: 0.0625}]}
search:
  objectives: {val/nme: min, val/mae: min}
  num_samples: 4
  start_with: [quick, quick_plain]
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_is_usable_as_it_stands(name: str) -> None:
    plan = load_plan(name)
    expected = 0 if plan.settings.sampler.name == "grid" else 2
    assert len(plan.baselines) == expected, "the published settings and the plain competent one"
    for baseline in plan.baselines:
        resolved = plan.config_of(plan.space.at(baseline.point))
        assert resolved.tree() == baseline.config.tree()


def test_the_quick_space_covers_every_axis_that_the_library_exists_for() -> None:
    names = dict(load_plan("quick").space.parameters())
    assert len(names["model.backbone"].labels) >= 2
    assert set(names["strategy"].labels) == {"weighted_sum", "uncertainty", "pcgrad"}
    assert set(names["losses.landmarks"].labels) == {"smooth_l1", "wing"}
    assert {"losses.landmarks.wing.w", "losses.landmarks.wing.epsilon"} <= names.keys()
    assert {
        "losses.landmarks.smooth_l1.weight",
        "losses.pose.weight",
        "losses.parameters.weight",
    } <= names.keys()
    assert len(names["schedule"].labels) >= 2
    assert load_plan("quick").settings.num_samples >= 8


def test_baselines_come_first_and_resolve_exactly(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, SPACE))
    assert [baseline.name for baseline in plan.baselines] == ["quick", "quick_plain"]
    assert plan.baselines[0].point["strategy"] == "pcgrad"
    assert plan.baselines[1].point == {
        "strategy": "weighted_sum",
        "optimizer": "adamw",
        "schedule": "onecycle",
    }


def test_a_baseline_outside_the_space_stops_the_study_with_the_key(tmp_path: Path) -> None:
    text = SPACE.replace("lr: 0.004", "lr: 0.005")
    with pytest.raises(
        InputError, match=r"start_with: quick_plain is not a point.*optimizer\.adamw\.lr = 0.004.*fixes 0.005"
    ):
        load_plan(write(tmp_path, text))
    text = SPACE.replace("gamma: 0.2, warmup: 0.0625", "gamma: 0.2, warmup: 0.125")
    with pytest.raises(InputError, match=r"schedule\.multistep\.warmup = 0\.0625 and the space fixes 0\.125"):
        load_plan(write(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("space:", "spaces:", "did you mean 'space'"),
        ("objectives: {val/nme: min", "objectives: {val/nmee: min", "did you mean 'val/nme'"),
        ("val/nme: min", "val/nme: minimal", "'minimal' is not one of min, max"),
        ("num_samples: 4", "num_samples: 1", "start_with lists 2 trials and num_samples allows 1"),
        ("num_samples: 4", "num_sample: 4", "did you mean 'num_samples'"),
        ("num_samples: 4", "num_samples: 4\n  sampler: tpee", "did you mean 'tpe'"),
        ("{name: weighted_sum}", "{name: weighted_sun}", "did you mean 'weighted_sum'"),
        ("{name: onecycle}", "{name: onecycle, pct: 1}", "schedule.pct"),
        ("loguniform: [1.0e-4, 0.1]", "loguniform: [-1, 0.1]", "low > 0"),
        ("loguniform: [1.0e-4, 0.1]", "uniform: [-1, 0.1]", "optimizer.lr"),
        ("base: quick", "base: quik", "did you mean 'quick'"),
        ("start_with: [quick,", "start_with: [quack,", "did you mean 'quick'"),
    ],
)
def test_mistakes_in_a_space_are_found_before_any_work(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in SPACE
    with pytest.raises(InputError) as error:
        load_plan(write(tmp_path, SPACE.replace(old, new)))
    assert words in str(error.value)


def test_overrides_reach_space_and_baselines(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, SPACE), ["training.epochs=2", "strategy.name=uncertainty"])
    for baseline in plan.baselines:
        assert baseline.config.training.epochs == 2
        assert baseline.config.strategy.name == "uncertainty"
    assert "strategy" not in dict(plan.space.parameters())


def test_a_space_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="did you mean 'quick'"):
        load_plan("quik")
    with pytest.raises(InputError, match="no file"):
        load_plan("none.yaml")


def test_an_override_into_a_choice_is_refused_and_one_that_replaces_it_is_not() -> None:
    with pytest.raises(InputError, match=r"optimizer is a choice of this space; set it whole"):
        load_plan("quick", ["optimizer.lr=0.01"])
    with pytest.raises(InputError, match=r"losses\.landmarks is a choice"):
        load_plan("quick", ["losses.landmarks.weight=1"])
    plan = load_plan("quick", ["strategy.name=pcgrad", "losses.pose.weight=1"])
    assert not {"strategy", "losses.pose.weight"} & dict(plan.space.parameters()).keys()


def test_a_studys_own_space_file_can_be_searched_again(tmp_path: Path) -> None:
    plan = load_plan("quick")
    study_files(tmp_path, plan)
    again = load_plan(str(tmp_path / "space.yaml"))
    assert [baseline.config for baseline in again.baselines] == [baseline.config for baseline in plan.baselines]
    assert list(again.space.probes()) == list(plan.space.probes())


def test_the_strategies_space_holds_every_strategy_once_per_seed() -> None:
    plan = load_plan("strategies")
    points = [plan.config_of(plan.space.at(point)) for point in plan.space.grid()]
    assert plan.settings.num_samples == len(points) == 5 * len(strategies())
    assert points[0].strategy.name == "weighted_sum"
    assert {config.strategy.name for config in points} == set(strategies())
    assert load_plan("strategies", search={"num_samples": 3}).settings.num_samples == 3


def test_a_grid_without_its_sampler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"space\.seed: grid is for `search: \{sampler: grid\}`; with random use choice"
    ):
        load_plan("strategies", search={"sampler": "random"})


def test_the_full_space_searches_every_strategy_over_its_own_ranges() -> None:
    """Those that need several samples of a gradient apart, which are in the strategies' own space."""
    parameters = dict(load_plan("full").space.parameters())
    single = [name for name in strategies() if strategy_info(name).samples == 1]
    assert sorted(parameters["strategy"].labels) == sorted(single)
    for name in single:
        for given in strategy_info(name).hyperparameters:
            key = f"strategy.{name}.{given.name}"
            if given.search is None:
                assert key not in parameters
                continue
            ((kind, values),) = given.search.items()
            if kind == "choice":
                assert parameters[key].values == tuple(values)
            else:
                assert (parameters[key].name, parameters[key].ends) == (kind, tuple(values))
    assert {"model.backbone", "model.heads", "optimizer", "schedule"} <= parameters.keys()
    assert any(name.endswith("wing.epsilon") for name in parameters)
