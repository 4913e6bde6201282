"""Every strategy computes on a GPU what it computes on the CPU."""

from __future__ import annotations

import pytest
import torch

from mtlsearch import MultiTaskOptimizer, strategies

from .helpers import TwoHeads

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NAMES = ("a", "b", "c")


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
