from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from examples.own_problem import Waves
from mtlsearch import tune
from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.dry_run.drawing import sample_configs
from mtlsearch.search.dry_run.dry_run import DryRun, Timed, dry_run
from mtlsearch.search.dry_run.page import show, space_lines
from mtlsearch.search.dry_run.prediction import affordable_trials, expected_survival, makespan, predict
from mtlsearch.search.executors.resources import Resources
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.plan.space import Space
from mtlsearch.training import load_run_config, run_training
from mtlsearch.training.rehearsal import EpochCost, Rehearsal, rehearse

pytestmark = pytest.mark.usefixtures("at_root")

ROOT = Path(__file__).parents[2]
SPACE = "examples/own_space.yaml"


class Broken(Waves):
    """A narrow model takes its process with it, as a lack of memory does; another is not a number from the start."""

    def build_model(self) -> nn.Module:
        if self.config.model.width < 20:
            os._exit(9)
        model = super().build_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(math.nan)
        return model


def cost(step_s: float = 1.0, val_s: float = 0.0, test_s: float = 0.0) -> Rehearsal:
    """Nine epochs of ten steps."""
    return Rehearsal(0.0, (EpochCost(9, step_s, 10, val_s, 0.0),), test_s, memory=0, gpu_memory=0)


def settings(**search: Any) -> SearchSettings:
    return SearchSettings(objectives={"val/x": "min"}, **search)


def test_the_time_of_a_trial_is_predicted_about_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CPU seconds, since others use the machine that runs tests, now more and now less."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    plan = load_plan(SPACE, ["training.epochs=40"], {"num_samples": 2})
    for config in [plan.baselines[0].config, *sample_configs(plan, 1)]:
        cost = rehearse(config, tmp_path)
        assert not list(tmp_path.iterdir())
        assert cost.memory > 1e8, "a process with torch in it"
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            run_training(config, directory=Path(folder), threads=1)
            seconds = time.process_time() - started
        assert seconds / 2.5 < cost.training_s() < seconds * 2.5


def test_faces_are_priced_and_nothing_is_written(tmp_path: Path) -> None:
    """The command with every place that it could write to in one folder."""
    places = {"HOME": "home", "TMPDIR": "tmp", "MTLSEARCH_CACHE": "cache", "XDG_CACHE_HOME": "xdg"}
    for name in (*places.values(), "work"):
        (tmp_path / name).mkdir()
    result = subprocess.run(
        [
            sys.executable, "-m", "mtlsearch.tune", "--dry-run", "--num-samples", "2", "--time-budget-s", "600",
            "--set", "model.backbone=test_resnet", "--set", "data.image_size=32",
        ],
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT), **{key: str(tmp_path / name) for key, name in places.items()}},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    left = [path for path in tmp_path.rglob("*") if path.name not in (*places.values(), "work")]
    assert not left
    for words in ("losses.parameters.weight", "an epoch", "without early stopping", "data, once", "In 600 s about"):
        assert words in result.stdout


def test_stages_are_timed_each_at_its_own_size(tmp_path: Path) -> None:
    data = "data={train: 640, val: 64, test: 64, image_size: 64, margin: 1.25}"
    stages = "training.stages=[{until: 1, image_size: 32, data: 0.5}, {until: 2, data: 0.5}]"
    costs = rehearse(load_run_config("quick", [data, stages, "model.backbone=test_resnet"]), tmp_path).stages
    assert [one.until for one in costs] == [1, 2, 6]
    assert costs[0].steps == costs[1].steps == costs[2].steps / 2
    assert costs[0].step_s < costs[1].step_s == costs[2].step_s
    assert costs[1].seconds < costs[2].seconds


def test_what_cannot_be_trained_is_named_with_its_reason(tmp_path: Path) -> None:
    overrides = [
        "problem=tests.search.test_dry_run:Broken", "model={width: {grid: [10, 40]}}", "strategy={name: pcgrad}",
        "optimizer={lr: 0.01}", "schedule={name: cosine}",
    ]  # fmt: skip
    plan = load_plan(SPACE, overrides, {"sampler": "grid", "start_with": []})
    dry = dry_run(plan, results=tmp_path)
    assert not list(tmp_path.iterdir())
    faults = {one.config.tree()["model"]["width"]: one.fault for one in dry.sampled}
    assert "ended with code 9" in faults[10]
    assert "loss 'frequency' became nan in epoch 1" in faults[40]
    assert dry.prediction is None
    screen = io.StringIO()
    show(dry, Console(file=screen, width=200, markup=False))
    assert "sample 1 cannot be trained: its process ended" in screen.getvalue()
    assert "nothing can be predicted" in screen.getvalue()


def test_the_page_says_whether_trials_fit_their_share_of_a_gpu() -> None:
    plan = load_plan(SPACE, [], {"num_samples": 4})
    costs = [replace(cost(), gpu_memory=size) for size in (4 * 10**9, 24 * 10**9)]
    timed = tuple(Timed(f"sample {place}", plan.baselines[0].config, one) for place, one in enumerate(costs))
    resources = Resources(8, 4, 2, 0.25, executor="ray_train")
    predicted = predict(plan.settings, costs[:1], costs[1:], ([], []), lanes=1, gpus=1)
    dry = DryRun(plan, timed[:1], timed[1:], 1, (), 0.0, 1, resources, 1, resources, predicted, gpu_bytes=80e9)
    screen = io.StringIO()
    show(dry, Console(file=screen, width=200, markup=False))
    told = "--gpus-per-worker 0.25 does not fit: 4 trials × 30.0 GB on 80.0 GB; 2 do with --gpus-per-worker 0.5."
    assert told in screen.getvalue(), "by the largest, with a quarter of head-room"


def test_samples_show_every_option_and_satisfy_the_constraints() -> None:
    plan = load_plan("quick")
    shown = [config.tree() for config in sample_configs(plan, 5)]
    for key, count in (("backbone", 3), ("head", 2)):
        assert len({str(tree["model"][key]) for tree in shown}) == count
    assert len({tree["strategy"]["name"] for tree in shown}) == 3
    weights = sorted(math.log(tree["losses"]["pose"]["weight"] / 0.3) / math.log(10) for tree in shown)
    assert len({int(5 * weight) for weight in weights}) >= 4, "spread over the range"
    narrow = load_plan(SPACE, [], {"constraints": {"max_params": 3000}, "start_with": []})
    widths = [config.tree()["model"]["width"] for config in sample_configs(narrow, 5)]
    assert len(widths) == 5
    assert max(widths) < 40


def test_a_space_is_shown_with_what_hangs_on_what() -> None:
    lines = list(space_lines(load_plan("quick").space))
    assert "losses.landmarks  choice of 2: smooth_l1, wing" in lines
    assert "    wing.w  uniform from 5 to 20" in lines
    assert lines[-1] == "14 parameters; 216 combinations of choices, and ranges"
    assert list(space_lines(load_plan("strategies").space))[-1].endswith("160 points")
    large = {"width": {"randint": [8, 2_000_001]}, "lr": {"loguniform": [1e-5, 1.0]}}
    assert list(space_lines(Space({}, large)))[:2] == [
        "width  randint from 8 to 2,000,000", "lr  loguniform from 1e-05 to 1",
    ]  # fmt: skip


def test_early_stopping_leaves_what_its_rungs_let_through() -> None:
    assert expected_survival(settings(), [9], [], 50) == [1.0] * 9
    asha = settings(early_stopping={"name": "asha", "grace_epochs": 1, "reduction_factor": 3})
    # all run 1 epoch, a third 3, a ninth 9
    assert expected_survival(asha, [9], [9], 200) == pytest.approx([1] + [1 / 3] * 2 + [1 / 9] * 6, rel=0.3)
    assert expected_survival(asha, [9], [], 2)[-1] >= 0.5, "the first at a rung goes on"


def test_cheap_epochs_cost_what_they_do() -> None:
    stages = EpochCost(2, 1.0, 5, 0.5, 0.5), EpochCost(4, 2.0, 10, 2.0, 1.0)
    found = Rehearsal(3.0, stages, 0.0, memory=0, gpu_memory=0)
    assert found.training_s() == 3 + 2 * 6 + 2 * 23
    assert found.training_s([1, 1, 0.5, 0.25]) == 3 + 2 * 6 + 0.75 * 23


def test_lanes_and_budgets_by_hand() -> None:
    assert makespan([3, 1, 1, 4], 2) == 6
    assert affordable_trials([4.0, *[3.0] * 9], 10.0, 1) == (3, 3)
    assert affordable_trials([4.0, *[3.0] * 9], 9.0, 2) == (6, 5), "4, 7, 10 in one lane; 3, 6, 9 in the other"
    assert affordable_trials([4.0, 4.0, 3.0], 3.0, 1) == (1, 0)
    assert affordable_trials([3.0] * 2, 1000.0, 1) == (2, 2), "no more than are asked for"
    given = settings(num_samples=5, confirm={"top": 1, "seeds": 2}, time_budget_s=150, gpu_hours=1)
    baselines, sampled = [cost(val_s=1, test_s=2)], [cost(step_s=0.5), cost(step_s=1.5)]
    found = predict(given, baselines, sampled, ([], []), lanes=1)
    assert found.search_s == found.whole_search_s == 99 + 2 * (45 + 135)
    assert found.confirm_s == 2 * (99 + 1 + 4 + 90)
    assert found.affordable == found.affordable_whole == (2, 1)
    assert predict(given, baselines, sampled, ([], []), lanes=1, gpus=100.0).affordable == (1, 0), "36 s of 100 GPUs"
    proxy = settings(num_samples=5, proxy={"full": {"seed": 1}, "spread": 2}, confirm={"top": 1, "seeds": 0})
    assert predict(proxy, baselines, sampled, ([cost()], [cost(step_s=2.0)]), lanes=1).full_s == 90 + 3 * 180


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"price_per_gpu_hour": 2.0}, "is for --dry-run"),
        ({"dry_run": True, "resume": Path("results/study")}, "leave out --resume"),
        ({"dry_run": True, "from_study": Path("nowhere"), "space": SPACE}, "nowhere holds no readable study"),
        ({"dry_run": True, "price_per_gpu_hour": 2.0, "space": SPACE}, "torch sees no GPU here"),
        ({"dry_run": True, "gpu_hours": 2.0, "space": SPACE}, "limit the search with --time-budget-s"),
        ({"time_budget_s": -1.0, "space": SPACE}, "time_budget_s"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=words):
        tune.main(**options)
