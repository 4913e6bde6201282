"""Every strategy on a GPU: what it computes, and that closed forms never wait for the device."""

from __future__ import annotations

import pytest
import torch

from mtlsearch import MultiTaskOptimizer, strategies
from mtlsearch.gradients import SolvedStrategy, strategy_info

from .helpers import TwoHeads

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NAMES = ("a", "b", "c")
# Their weights come from a solver on the host, or from projections there: one wait a step.
WAITING = {"moco", "modo", "sdmgrad", "imtl", "cr_mogm"}


def build(name: str, device: str, dtype: torch.dtype = torch.float64) -> tuple[TwoHeads, MultiTaskOptimizer]:
    torch.manual_seed(7)
    model = TwoHeads(NAMES).to(device, dtype)
    plain = torch.optim.SGD(model.parameters(), lr=0.05)
    return model, MultiTaskOptimizer(plain, name, tasks=NAMES)


def step(model: TwoHeads, optimizer: MultiTaskOptimizer, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    samples = getattr(optimizer.strategy, "samples", 1)
    for left in reversed(range(samples)):
        optimizer.backward(model.losses(inputs), combine=left == 0)
    optimizer.step()


@pytest.mark.parametrize("name", strategies())
def test_equals_the_cpu(name: str) -> None:
    if name == "graddrop":
        pytest.skip("its draws come from the device's own generator")
    inputs = torch.randn(3, 12, 6, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        model, optimizer = build(name, device)
        for batch in inputs.to(device):
            step(model, optimizer, batch)
        restored = build(name, device)[1]
        restored.load_state_dict(optimizer.state_dict())
        results.append([p.detach().cpu() for p in model.parameters()])
    for p, q in zip(*results):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", strategies())
def test_waits_for_the_device_at_most_once(name: str) -> None:
    model, optimizer = build(name, "cuda", torch.float32)
    inputs = torch.randn(12, 6, device="cuda")
    for _ in range(3):
        step(model, optimizer, inputs)
    torch.cuda.synchronize()
    losses = [model.losses(inputs) for _ in range(getattr(optimizer.strategy, "samples", 1))]
    torch.cuda.synchronize()
    waits = issubclass(strategy_info(name).strategy, SolvedStrategy) or name in WAITING
    torch.cuda.set_sync_debug_mode("warn" if waits else "error")
    try:
        with pytest.warns(UserWarning) if waits else torch.no_grad() as caught, torch.enable_grad():
            for left, given in zip(reversed(range(len(losses))), losses):
                optimizer.backward(given, combine=left == 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if waits:
        seen = [str(w.message) for w in caught if "synchronizing" in str(w.message)]
        assert len(seen) >= 1
