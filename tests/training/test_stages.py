from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.own_problem import SIZES, Waves
from mtlsearch.errors import InputError
from mtlsearch.training import RunConfig, load_run_config, run_training, train
from mtlsearch.training.record import RunRecord

pytestmark = pytest.mark.usefixtures("at_root")

EPOCHS = 4


class ResizingWaves(Waves):
    """Notes what it is asked for."""

    sizes: list[int | None]
    seen: list[tuple[int, int | None]]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.sizes, self.seen = [], []

    def resize(self, image_size: int | None) -> None:
        self.sizes.append(image_size)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        self.seen.append((len(indices), self.sizes[-1]))
        return super().batch(indices, generator)


def config(stages: str, problem: str = "tests.training.test_stages:ResizingWaves") -> RunConfig:
    overrides = [f"problem={problem}", f"training.epochs={EPOCHS}", f"training.stages={stages}"]
    return load_run_config("examples/own_problem.yaml", overrides)


def trained(stages: str, **options: Any) -> tuple[ResizingWaves, Any]:
    own = config(stages)
    problem = ResizingWaves(own)  # type: ignore[arg-type]
    problem.prepare()
    return problem, train(problem, own, **options)


def test_an_epoch_of_a_stage_sees_its_share_of_the_data_at_its_size() -> None:
    problem, _ = trained("[{until: 1, data: 0.25, image_size: 8}, {until: 3, data: 0.5, image_size: 16}]")
    seen: dict[int | None, int] = {}
    for samples, size in problem.seen:
        seen[size] = seen.get(size, 0) + samples
    count = SIZES["train"]
    assert seen == {8: count // 4, 16: 2 * (count // 2), None: count}
    assert problem.sizes[-1] is None, "what comes after the training is at the problem's own size"


def test_the_learning_rate_falls_to_its_end_over_the_steps_that_there_are() -> None:
    steps: list[tuple[int, int]] = []
    _, cheap = trained("[{until: 2, data: 0.1}]", on_step=lambda done, total: steps.append((done, total)))
    total = 2 * math.ceil(0.1 * SIZES["train"] / 50) + 2 * SIZES["train"] // 50
    assert steps == [(done, total) for done in range(1, total + 1)]
    last = 0.01 * (1 + math.cos(math.pi * (total - 1) / total)) / 2
    assert cheap.history[-1]["train/lr"] == pytest.approx(last, rel=1e-6)


def test_the_best_epoch_is_one_of_the_last_stage() -> None:
    def worse_and_worse(problem: Any, model: Any, split: str, calls: list[int] = []) -> dict[str, float]:  # noqa: B006
        calls.append(1)
        return {"frequency_error": float(len(calls)), "phase_error": 1.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResizingWaves, "evaluate", worse_and_worse)
        _, result = trained("[{until: 2, data: 0.5}]")
    assert [row["best/epoch"] for row in result.history] == [1, 1, 3, 3]
    assert result.best["epoch"] == 3
    record = RunRecord({}, {}, result.history, ("val/frequency_error", "min"))
    assert record.best["epoch"] == 3


def test_a_run_that_was_cut_within_a_stage_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    own = config("[{until: 2, data: 0.3, image_size: 8}]")
    whole = run_training(own).result.history
    run_training(own, directory=tmp_path, stop_after=1)
    again = run_training(own, directory=tmp_path).result.history
    keys = [key for key in whole[0] if not key.startswith("time/")]
    assert [[row[key] for key in keys] for row in again] == [[row[key] for key in keys] for row in whole]


@pytest.mark.parametrize("stages", ["[{until: 4}]", "[{until: 2}, {until: 2}]", "[{until: 3}, {until: 1}]"])
def test_stages_end_one_after_the_other_and_before_the_run(stages: str) -> None:
    with pytest.raises(InputError, match="stages must end one after the other and before the last of 4 epochs"):
        config(stages)


def test_a_problem_that_cannot_resize_its_images_says_so() -> None:
    with pytest.raises(InputError, match=r"has no resize\(\)"):
        config("[{until: 1, image_size: 8}]", "examples.own_problem:Waves")
    with pytest.raises(InputError, match=r"from 32 to data\.image_size, 64, got 16"):
        load_run_config("quick", ["training.stages=[{until: 1, image_size: 16}]"])
