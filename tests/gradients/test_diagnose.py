"""`diagnose` sees conflicts where they are, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlsearch import PCGrad, diagnose

from .helpers import TwoHeads, gradients, same


class Opposed(nn.Module):
    """Two tasks that agree in one layer and pull against each other in the next, in every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.agree = nn.Linear(4, 1, bias=False)
        self.clash = nn.Linear(4, 1, bias=False)
        self.head = nn.Linear(1, 1)
        nn.init.constant_(self.head.weight, 1.0)

    def losses(self, batch: tuple[Tensor, float]) -> dict[str, Tensor]:
        inputs, sign = batch
        agree, clash = self.agree(inputs).mean(), 2 * self.clash(inputs).mean()
        return {
            "first": agree + clash,
            "second": 10 * (agree + sign * clash),
            "third": self.head(agree.view(1, 1)).sum(),
        }


def batches(count: int) -> list[tuple[Tensor, float]]:
    return [(torch.ones(2, 4), 1.0 if index % 2 else -1.0) for index in range(count)]


def losses(model: Any, batch: Any) -> dict[str, Tensor]:
    return model.losses(batch)


def test_conflicts_by_pair_and_layer() -> None:
    found = diagnose(Opposed(), losses, batches(8))
    assert found.tasks == ("first", "second", "third") and found.steps == 8
    assert found.shared_parameters == 8  # the head is the third task's own
    assert found.conflict_share == 0.5
    assert found.pair_conflicts[0, 1] == 0.5 and found.pair_conflicts[0, 2] == 0
    # g_1 = (1, 2), g_2 = 10·(1, ±2) over the two layers: cosines 1 and −3/5.
    assert found.cosines[0, 1] == pytest.approx(0.2)
    assert found.imbalance == pytest.approx(10 * 5**0.5)
    layers = {layer.name: layer for layer in found.layers}
    assert set(layers) == {"agree", "clash"}
    assert layers["agree"].conflict_share == 0 and layers["clash"].conflict_share == 0.5
    assert "50% of the steps have a conflict, most often 'first' with 'second'" in found.verdict
    assert "'second' are the longest" in found.verdict
    for words in ("first, second", "clash", "engine=", "× plain", found.verdict):
        assert words in str(found)


def test_without_conflict_surgery_is_not_advised() -> None:
    found = diagnose(Opposed(), losses, [(torch.ones(2, 4), 1.0)] * 4)
    assert found.conflict_share == 0
    assert "surgery is unlikely to help" in found.verdict


def test_is_what_a_step_sees_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = TwoHeads()
    batch = torch.randn(8, 6)
    sum(model.losses(batch).values()).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = gradients(model)
    found = diagnose(model, losses, [batch] * 2)
    assert same(held, gradients(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer.backward(model.losses(batch))
    torch.testing.assert_close(found.cosines, optimizer.diagnostics.cosines, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.lengths, optimizer.diagnostics.norms, rtol=1e-5, atol=1e-6)


def test_named_sets_and_costs() -> None:
    torch.manual_seed(0)
    model = TwoHeads()
    found = diagnose(model, losses, [torch.randn(8, 6)], shared=model.trunk[3])
    assert found.shared_parameters == 8 * 16 + 8
    rows = next(engine for engine in found.engines if "rows" in engine.name)
    assert rows.extra_bytes == 2 * found.shared_parameters * 4
    assert all(engine.seconds > 0 for engine in found.engines)


def test_what_cannot_be_diagnosed() -> None:
    model = TwoHeads()
    with pytest.raises(ValueError, match="the loader gave no batch"):
        diagnose(model, losses, [])
    with pytest.raises(ValueError, match="two tasks or more"):
        diagnose(model, lambda model, batch: {"a": model.losses(batch)["a"]}, [torch.randn(8, 6)])
    with pytest.raises(ValueError, match="share no parameter"):
        diagnose(model, lambda model, _: [head.weight.sum() for head in model.heads.values()], [0])
