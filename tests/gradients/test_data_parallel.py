"""Two gloo ranks with a part of the batch each give what one process gives with all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mtlsearch import MultiTaskOptimizer, PCGrad, strategies
from tests.ranks import on_two_ranks

from .helpers import gradients

TASKS = ("a", "b", "c")
STEPS = 2


class Model(nn.Module):
    """A trunk, a head for each task, and a parameter that nobody uses."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in TASKS)
        self.unused = nn.Parameter(torch.ones(3))
        self.to(dtype)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs)
        return [head(features) for head in self.heads]


def batch(index: int, dtype: torch.dtype, masked: bool) -> tuple[Tensor, Tensor]:
    """Inputs (8, 5) and which of the samples have labels for which tasks (8, 3)."""
    generator = torch.Generator().manual_seed(index)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64).to(dtype)
    labelled = torch.ones(8, len(TASKS), dtype=torch.bool)
    if masked:  # uneven; the second half has no label for task b in the first step, nor for c in the second
        labelled = torch.rand(8, len(TASKS), generator=generator) < 0.6
        labelled[0] = True
        labelled[4:, 1 + index % 2] = False
        labelled[7, 0] = True
    return inputs, labelled


def losses(outputs: list[Tensor], labelled: Tensor) -> tuple[dict[str, Tensor | None], dict[str, float]]:
    """Means over labelled samples, with targets that pull in different directions, and their counts."""
    result: dict[str, Tensor | None] = {}
    for i, (task, output) in enumerate(zip(TASKS, outputs)):
        errors = (output - (-1.0) ** i * (1 + i)).square().mean(1)
        result[task] = errors[labelled[:, i]].mean() if labelled[:, i].any() else None
    return result, {task: float(labelled[:, i].sum()) for i, task in enumerate(TASKS)}


def train(
    part: slice, strategy: str, dtype: torch.dtype, wrap: bool, masked: bool, **options: Any
) -> list[dict[str, Tensor | None]]:
    """The gradients of some steps on a part of each batch."""
    model = Model(dtype)
    called: nn.Module = DistributedDataParallel(model, find_unused_parameters=masked) if wrap else model
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), strategy, TASKS, **options)
    samples = getattr(optimizer.strategy, "samples", 1)
    seen = []
    for index in range(STEPS):
        optimizer.zero_grad()
        for sample in range(samples):
            inputs, labelled = batch(STEPS * sample + index, dtype, masked and samples == 1)
            given, counts = losses(called(inputs[part]), labelled[part])
            optimizer.backward(given, counts=counts, combine=samples == 1)
        if samples > 1:
            optimizer.combine()
        seen.append(gradients(model))
        optimizer.step()
    return seen


def train_many(rank: int, cases: list[tuple[str, torch.dtype, bool, bool, dict[str, Any]]]) -> list[Any]:
    part = (slice(0, 3), slice(3, 8))[rank]  # uneven parts, so counts matter
    return [train(part, name, dtype, wrap, masked, **options) for name, dtype, wrap, masked, options in cases]


# Of the gradient's length. Solvers amplify the rounding of the Gramian by the condition of their equations.
SOLVED = ("cagrad", "nash_mtl", "fairgrad", "mgda", "upgrad", "dualproj", "pcd", "cr_mogm")
LINEAR = ("imtl", "imtl_g", "aligned_mtl", "config")
FLOAT32_BOUND = dict.fromkeys(SOLVED, 1e-5) | dict.fromkeys(LINEAR, 1e-5)


CASES = [
    (name, dtype, wrap, masked, {})
    for name in strategies()
    for dtype, wrap, masked in (
        (torch.float64, False, False),
        (torch.float64, True, True),
        (torch.float32, False, True),
    )
]


@pytest.fixture(scope="module")
def results() -> list[tuple[Any, Any]]:
    """What each rank got, case by case: all in one process group, which takes seconds to start."""
    first, second = on_two_ranks(train_many, CASES)
    return list(zip(first, second))


@pytest.mark.parametrize("name", strategies())
def test_ranks_equal_one_process(name: str, results: list[Any]) -> None:
    for case, (first, second) in zip(CASES, results):
        if case[0] != name:
            continue
        _, dtype, _, masked, _ = case
        expected = train(slice(0, 8), name, dtype, False, masked)
        bound = 1e-10 if dtype == torch.float64 else FLOAT32_BOUND.get(name, 1e-6)
        for one, two, whole in zip(first, second, expected):
            length = sum(float(g.double().square().sum()) for g in whole.values() if g is not None) ** 0.5
            for key, gradient in whole.items():
                assert (one[key] is None) == (two[key] is None) == (gradient is None), (case, key)
                if gradient is not None:
                    assert torch.equal(one[key], two[key]), (case, key)
                    assert float((one[key] - gradient).double().norm()) <= bound * length, (case, key)


def test_engines_on_ranks() -> None:
    options = [{"update_every": 2}, {"engine": "ghost"}, {"engine": "rows"}]
    cases = [("pcgrad", torch.float64, wrap, True, option) for option in options for wrap in (False, True)]
    first, second = on_two_ranks(train_many, cases)
    for case, one, two in zip(cases, first, second):
        expected = train(slice(0, 8), "pcgrad", torch.float64, False, True, **case[-1])
        for got, also, whole in zip(one, two, expected):
            assert_all_equal(got, also, whole)


def assert_all_equal(
    one: dict[str, Tensor | None], two: dict[str, Tensor | None], whole: dict[str, Tensor | None]
) -> None:
    """Both ranks have the same bits, and what one process has."""
    for key, gradient in whole.items():
        assert (gradient is None) == (one[key] is None) == (two[key] is None)
        if gradient is not None:
            assert torch.equal(one[key], two[key])
            torch.testing.assert_close(one[key], gradient, rtol=1e-10, atol=1e-12)


def at_features(rank: int | None) -> dict[str, Tensor | None]:
    model = Model(torch.float64)
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS, engine="feature")
    part = slice(0, 8) if rank is None else (slice(0, 3), slice(3, 8))[rank]
    inputs, labelled = batch(0, torch.float64, True)
    features = model.trunk(inputs[part])
    given, counts = losses([head(features) for head in model.heads], labelled[part])
    optimizer.backward(given, counts=counts, features=features)
    return gradients(model)


def test_features_on_ranks() -> None:
    assert_all_equal(*on_two_ranks(at_features), at_features(None))


def accumulate(rank: int | None) -> dict[str, Tensor | None]:
    """One step of micro-batches, task by task: "a" in two calls, "b" in one, "c" only with the first rank's labels."""
    model = Model(torch.float64)
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS)
    inputs, everything = batch(0, torch.float64, False)
    part = slice(0, 8) if rank is None else (slice(0, 4), slice(4, 8))[rank]
    labelled = everything[part]
    for task in ("a", "a", "b", "c"):
        given, counts = losses(model(inputs[part]), labelled)
        loss = given[task]
        if task == "c" and rank is not None:
            loss, counts["c"] = (loss, 4.0) if rank == 0 else (None, 0.0)
        elif task == "c":
            loss = losses(model(inputs[:4]), everything[:4])[0]["c"]
        optimizer.backward({task: loss}, combine=False, counts=counts)
    optimizer.combine()
    return gradients(model)


def test_accumulation_on_ranks() -> None:
    assert_all_equal(*on_two_ranks(accumulate), accumulate(None))


@contextmanager
def caught() -> Iterator[list[str]]:
    messages: list[str] = []
    try:
        yield messages
    except (RuntimeError, FloatingPointError, ValueError) as error:
        messages.append(f"{type(error).__name__}: {error}")


def misuse(rank: int, how: str) -> str:
    torch.manual_seed(rank if how == "parameters" else 0)
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)])
    tasks = ["b", "a"] if how == "tasks" and rank else ["a", "b"]
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), tasks=tasks)

    def step() -> None:
        features = model[0](torch.ones(2, 3)).tanh()
        given = [(head(features) - i).square().mean() for i, head in enumerate(model[1:])]
        if how == "nan" and rank:
            given[0] = given[0] * torch.nan
        if how == "shape" and rank:
            given[0] = given[0] * torch.ones(2)
        optimizer.zero_grad()
        if how == "calls":
            for loss, task in list(zip(given, "ab"))[: 2 - rank]:
                optimizer.backward({task: loss}, combine=False)
            optimizer.combine()
        optimizer.backward(given)
        optimizer.step()

    with caught() as messages:
        if how == "steps" and rank:
            optimizer._progress.step = 4  # as if this rank had restored a checkpoint and the other had not
        step()
        if how == "plain backward":
            (model[0](torch.full((2, 3), float(rank))).square().mean()).backward()
            optimizer.step()
            step()
    return "".join(messages)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("parameters", "RuntimeError", "ranks hold different parameters: start them from the same seed"),
        ("steps", "RuntimeError", r"ranks are at different steps ([0, 4])"),
        ("tasks", "RuntimeError", "ranks name different tasks"),
        ("nan", "LossNotFinite", "the loss of task 'a' is nan"),
        ("calls", "RuntimeError", "ranks do different things ([0, 1])"),
        ("plain backward", "RuntimeError", "let every gradient come through this optimizer's backward"),
    ],
)
def test_ranks_out_of_step_are_told_so_together(how: str, error: str, words: str) -> None:
    for message in on_two_ranks(misuse, how):
        assert message.startswith(error) and words in message, message


def test_a_mistake_on_one_rank_stops_all() -> None:
    other, mistaken = on_two_ranks(misuse, "shape")
    assert mistaken.startswith("ValueError") and "must be a scalar" in mistaken
    assert other.startswith("RuntimeError") and "rank 1 has failed" in other


def masked_mean(rank: int) -> Tensor:
    """Rank 1 has no label, and a mean over none of them: 0/0."""
    model = Model(torch.float64)
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS)
    inputs, labelled = batch(0, torch.float64, False)
    given, counts = losses(model(inputs), labelled)
    if rank:
        given["b"], counts["b"] = given["b"] * 0 / torch.zeros(()), 0
    optimizer.backward(given, counts=counts)
    return model.trunk[0].weight.grad


def test_a_loss_that_counts_nothing_may_be_nan() -> None:
    one, two = on_two_ranks(masked_mean)
    assert one.isfinite().all() and torch.equal(one, two)


def keep_apart(rank: int) -> Tensor:
    model = Model(torch.float64)
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), process_group=False)
    inputs, labelled = batch(rank, torch.float64, False)
    optimizer.backward(losses(model(inputs), labelled)[0])
    return model.trunk[0].weight.grad


def test_a_process_can_keep_to_itself() -> None:
    one, two = on_two_ranks(keep_apart)
    assert not torch.equal(one, two)


def sent_bytes() -> int:
    """Bytes that the loopback interface has sent."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def traffic(rank: int, tasks: int) -> tuple[int, int]:
    """Bytes sent by both ranks in one combination, and in one all-reduce of the shared gradients."""
    torch.manual_seed(0)
    trunk = nn.Linear(1000, 4000)  # 16 MB
    heads = nn.ModuleList(nn.Linear(4000, 1) for _ in range(tasks))
    optimizer = PCGrad(torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.1))

    def step() -> None:
        features = trunk(torch.randn(2, 1000))
        optimizer.backward([head(features).square().mean() for head in heads])
        optimizer.zero_grad()

    def count(action: Callable[[], object]) -> int:
        dist.barrier()
        before = sent_bytes()
        dist.barrier()
        action()
        dist.barrier()
        return sent_bytes() - before

    step()
    flat = torch.zeros(sum(p.numel() for p in trunk.parameters()))
    # Other traffic on the machine only adds: the least of a few is ours.
    ours = min(count(step) for _ in range(3))
    return ours, min(count(lambda: dist.all_reduce(flat)) for _ in range(3))


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="needs Linux's network counters")
@pytest.mark.parametrize("tasks", [2, 3])
def test_traffic_is_that_of_half_the_tasks_and_one(tasks: int) -> None:
    ours, all_reduce = on_two_ranks(traffic, tasks)[0]
    assert ours / all_reduce == pytest.approx((tasks + 1) / 2, rel=0.1)
