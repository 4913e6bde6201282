"""FSDP2: parameters sharded over two gloo ranks train as in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed.fsdp
from torch import Tensor

from mtlsearch import MultiTaskOptimizer, strategies
from mtlsearch.gradients import RowStrategy, get_strategy
from tests.ranks import on_two_ranks

from .test_data_parallel import STEPS, TASKS, Model, batch, losses

pytestmark = pytest.mark.skipif(
    not hasattr(torch.distributed.fsdp, "fully_shard"), reason="fully_shard is public from torch 2.6 on"
)

# What FSDP can serve: strategies that do not need whole rows.
SERVED = [name for name in strategies() if not isinstance(get_strategy(name), RowStrategy)]


def whole(gradient: Tensor | None) -> Tensor | None:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def train(rank: int | None, strategy: str, reshard: bool, accumulate: bool = False, **options: Any) -> list[Any]:
    """The whole gradients of some steps, on this rank's part of each batch."""
    model = Model(torch.float64)
    if rank is not None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for module in (model.trunk, model):
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), strategy, TASKS, **options)
    part = slice(0, 8) if rank is None else (slice(0, 3), slice(3, 8))[rank]
    seen = []
    for index in range(STEPS):
        optimizer.zero_grad()
        inputs, labelled = batch(index, torch.float64, False)
        for left in reversed(range(2 if accumulate else 1)):
            given, counts = losses(model(inputs[part] + left), labelled[part])
            optimizer.backward(given, counts=counts, combine=left == 0)
        seen.append({name: whole(parameter.grad) for name, parameter in model.named_parameters()})
        optimizer.step()
    return seen


def train_many(rank: int | None, cases: list[tuple[str, bool, bool]]) -> list[Any]:
    return [train(rank, *case) for case in cases]


CASES = [(name, True, False) for name in SERVED]
CASES += [("pcgrad", False, False), ("pcgrad", True, True), ("uncertainty", True, True), ("dwa", True, True)]


def test_sharded_equals_one_process() -> None:
    results = on_two_ranks(train_many, CASES)
    for case, first, second in zip(CASES, *results):
        for one, two, expected in zip(first, second, train(None, *case)):
            for name, gradient in expected.items():
                assert (one[name] is None) == (two[name] is None) == (gradient is None), (case, name)
                if gradient is not None:
                    assert torch.equal(one[name], two[name]), (case, name)
                    assert torch.allclose(one[name], gradient, rtol=1e-10, atol=1e-11), (case, name)


def refuse(rank: int) -> list[str]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    messages = []
    model = Model(torch.float64)
    fully_shard(model.trunk, mesh=init_device_mesh("cpu", (2,)))
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for strategy, options in [("pcgrad", {}), ("graddrop", {}), ("pcgrad", {"update_every": 2}), ("pcgrad", {"x": 0})]:
        if strategy == "graddrop":
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
            inner = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            optimizer = MultiTaskOptimizer(inner, strategy, TASKS, **{k: v for k, v in options.items() if k != "x"})
            inputs, labelled = batch(0, torch.float64, False)
            given, _ = losses(model(inputs), labelled)
            optimizer.backward({**given, "b": None} if rank else given)
        except (ValueError, RuntimeError) as error:
            messages.append(str(error))
    return messages


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fsdp_cannot_serve_is_refused(rank: int, refused: list[list[str]]) -> None:
    mixed, rows, repeating, masked = refused[rank]
    assert "call fully_shard on the whole model too" in mixed
    assert "needs whole gradients" in rows
    assert "use engine='auto' and update_every=1" in repeating
    assert "not every rank has a loss for b" in masked


@pytest.fixture(scope="module")
def refused() -> list[list[str]]:
    return on_two_ranks(refuse)
