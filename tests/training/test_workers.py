"""Several processes train as one does, and small portions of a batch as the whole of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.own_problem import Waves
from mtlsearch.errors import InputError
from mtlsearch.training import load_run_config, reproduce, run_training, train
from mtlsearch.training.batching import load
from mtlsearch.training.loop import TrainingDiverged
from mtlsearch.training.problem import find_problem
from mtlsearch.training.record import largest_difference
from mtlsearch.training.workers import Portion, Workers
from tests.ranks import on_two_ranks

pytestmark = pytest.mark.usefixtures("at_root")

WAVES = ["training.epochs=2", "training.batch_size=37"]  # 600 samples: the last of the 17 batches has 8
#: no batch norm, so that a part of a batch is like the whole
FACES = [
    "data={name: synthetic, image_size: 48, train: 26, val: 12, test: 12}",
    "model={backbone: test_vit, head: {kind: linear}}",
    "training={epochs: 2, batch_size: 9}",
    "optimizer={name: sgd, lr: 0.05}",  # Adam makes a large step of the rounding of a small gradient
]


def trained(_rank: int, recipe: str, overrides: list[str], options: dict[str, Any]) -> dict[str, Any]:
    config = load_run_config(recipe, overrides)
    problem = find_problem(config.problem)(config)
    problem.prepare()
    result = train(problem, config, **options)
    return {"weights": result.model.state_dict(), "history": result.history}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one["weights"].items():
        difference = (value - other["weights"][name]).double().norm()
        assert difference <= 1e-5 * value.double().norm() + 1e-7, name
    for row, same in zip(one["history"], other["history"], strict=True):
        for key in row:
            if not key.startswith("time/"):
                assert same[key] == pytest.approx(row[key], rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("strategy", ["pcgrad", "uncertainty", "weighted_sum"])
def test_two_processes_train_as_one(strategy: str) -> None:
    overrides = [*WAVES, f"strategy={{name: {strategy}}}"]
    alone = trained(0, "examples/own_problem.yaml", overrides, {})
    first, second = on_two_ranks(trained, "examples/own_problem.yaml", overrides, {})
    assert_same(alone, first)
    assert first["history"] == second["history"]
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])


def test_two_processes_train_faces_as_one() -> None:
    alone = trained(0, "quick", FACES, {})
    first, _ = on_two_ranks(trained, "quick", FACES, {})
    assert_same(alone, first)


@pytest.mark.parametrize(("recipe", "overrides"), [("examples/own_problem.yaml", WAVES), ("quick", FACES)])
def test_small_portions_of_a_batch_are_the_whole_of_it(recipe: str, overrides: list[str]) -> None:
    assert_same(trained(0, recipe, overrides, {}), trained(0, recipe, overrides, {"micro_batch": 5}))


def interrupted(rank: int, folder: str) -> dict[str, Any]:
    overrides = [*WAVES, "strategy={name: pcgrad}"]
    trained(rank, "examples/own_problem.yaml", overrides, {"directory": Path(folder), "stop_after": 1})
    return trained(rank, "examples/own_problem.yaml", overrides, {"directory": Path(folder)})


def test_processes_that_start_again_go_on_where_they_were(tmp_path: Path) -> None:
    first, second = on_two_ranks(interrupted, str(tmp_path))
    assert len(first["history"]) == 2
    alone = trained(0, "examples/own_problem.yaml", [*WAVES, "strategy={name: pcgrad}"], {})
    assert_same(alone, first)
    assert_same(alone, second)


def diverges(rank: int) -> str:
    with pytest.raises(TrainingDiverged) as error:
        trained(rank, "examples/own_problem.yaml", [*WAVES, "optimizer={name: sgd, lr: 1.0e+9}"], {})
    return str(error.value)


def test_all_processes_know_that_a_loss_became_nan() -> None:
    reasons = on_two_ranks(diverges)
    assert all("became" in reason and "learning rate" in reason for reason in reasons)


class StubWorkers(Workers):
    def __init__(self, size: int, rank: int) -> None:
        self.size, self.rank = size, rank


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("most", [None, 1, 2, 4])
@pytest.mark.parametrize("samples", [1, 2, 7, 12])
def test_every_row_is_trained_once_and_all_take_equally_many_portions(
    size: int, most: int | None, samples: int
) -> None:
    parts = [StubWorkers(size, rank).portions(samples, most) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1
    rows = [row for part in parts for portion in part for row in range(samples)[portion.rows]]
    assert sorted(rows) == list(range(samples))
    for together in zip(*parts):
        assert {portion.together for portion in together} == {sum(portion.count for portion in together)}
    assert most is None or all(portion.count <= most for part in parts for portion in part)
    assert all(sum(portion.count for portion in part) >= math.floor(samples / size) for part in parts)


@pytest.mark.parametrize(("recipe", "overrides"), [("examples/own_problem.yaml", WAVES), ("quick", FACES)])
def test_parts_of_a_batch_are_its_rows_and_draw_as_the_whole_does(recipe: str, overrides: list[str]) -> None:
    config = load_run_config(recipe, overrides)
    problem = find_problem(config.problem)(config)
    problem.prepare()
    indices = torch.tensor([4, 0, 9, 3, 7])
    draws = torch.Generator().manual_seed(1)
    whole, after = problem.batch(indices, draws)[0], draws.get_state()
    for cuts in ([0, 2, 5], [0, 5, 5], [0, 0, 5]):
        draws = torch.Generator().manual_seed(1)
        portions = [Portion(slice(start, stop), stop - start) for start, stop in pairwise(cuts)]
        parts = [batch[0] for _, batch in load(problem, indices, draws, portions) if batch is not None]
        torch.testing.assert_close(torch.cat(parts), whole)
        assert torch.equal(draws.get_state(), after)


def test_a_batch_that_cannot_be_divided_says_what_to_do() -> None:
    class Opaque(Waves):
        def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
            return object()

    problem = Opaque(load_run_config("examples/own_problem.yaml"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"give the problem a part_of_batch"):
        list(load(problem, torch.arange(4), torch.Generator(), [Portion(slice(0, 2), 4)]))


def test_strategies_that_take_batches_for_samples_refuse_portions() -> None:
    with pytest.raises(InputError, match="sample of its own"):
        overrides = [*WAVES, "strategy={name: sdmgrad}", "training.accumulate=3"]
        trained(0, "examples/own_problem.yaml", overrides, {"micro_batch": 5})


def test_what_the_first_process_raises_is_raised() -> None:
    assert copy.deepcopy(Workers().from_first(lambda: 3)) == 3
    with pytest.raises(ZeroDivisionError):
        Workers().from_first(lambda: 1 // 0)


class Cramped(Waves):
    """Memory for so many samples at one time, and no more."""

    most = math.inf

    def losses(self, model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        if len(batch[0]) > self.most:
            raise torch.OutOfMemoryError("no memory left")
        return super().losses(model, batch)


def test_what_two_workers_trained_is_repeated_by_one_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*WAVES, "strategy={name: pcgrad}", "problem=tests.training.test_workers:Cramped"]
    record = run_training(load_run_config("examples/own_problem.yaml", overrides), threads=1).record
    record.environment["workers"] = 2
    monkeypatch.setattr(Cramped, "most", 10)  # a worker took 19 of 37: half of that fits
    with pytest.raises(torch.OutOfMemoryError):
        reproduce(record, micro_batch=11)
    rows: list[dict[str, float]] = []
    outcome = reproduce(record, micro_batch="auto", report=rows.append)
    assert any("workers: 2 -> 1" in line for line in outcome.lines())
    for row, same in zip(record.history, rows, strict=True):
        for key in row:
            assert key.startswith("time/") or same[key] == pytest.approx(row[key], rel=1e-4, abs=1e-5), key
    assert outcome.repeated and 0 < outcome.difference < 1e-4, "in another order of sums"
    assert any(
        "compared within 0.0001, as 2 workers recorded and 1 worker repeated it" in one for one in outcome.lines()
    )
    alone = replace(outcome, workers=(1, 1))
    assert not alone.repeated and "compared bit for bit" in alone.lines()[1]
    assert not replace(outcome, config=["optimizer.lr: 1 -> 2"]).repeated


def test_differences_are_relative_to_the_size_of_their_metric() -> None:
    nan = math.nan
    recorded = [{"epoch": 1.0, "a": 2.0, "b": nan, "time/s": 1.0}, {"epoch": 2.0, "a": 0.5, "b": 4.0, "time/s": 1.0}]
    repeated = [{**row, "time/s": 9.0, "new": 1.0} for row in recorded]
    assert largest_difference(recorded, repeated) == 0
    repeated[1]["a"] = 0.6
    assert largest_difference(recorded, repeated) == pytest.approx(0.05)
    assert largest_difference(recorded, repeated[:1]) == math.inf
    repeated[0]["b"] = 4.0
    assert largest_difference(recorded, repeated) == math.inf
