"""Shared, specific and unused parameters: from the graph, as given, and behind torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtlsearch import PCGrad
from mtlsearch.gradients.strategy import Step

from .helpers import TwoHeads, gradients, pcgrad_oracle, same


def sgd(model: nn.Module, **options: Any) -> PCGrad:
    return PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_a_parameter_that_some_tasks_reach_has_zero_rows_for_the_others() -> None:
    torch.manual_seed(1)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.ModuleList([first, second])
    features = first(torch.randn(8, 4)).tanh()
    deep = second(features)
    losses = [(deep - 1).square().mean(), (deep + 1).square().mean(), (features * 3).mean()]
    optimizer = sgd(model)
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(model.parameters(), found)])
        )
    optimizer.backward(losses)
    from mtlsearch.gradients.strategies.pcgrad import random_orders

    expected = pcgrad_oracle(torch.stack(rows), random_orders(3, Step()).tolist())
    got = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_branch_that_one_task_leaves_out_for_a_step() -> None:
    torch.manual_seed(1)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    optimizer = sgd(nn.ModuleList([first, second]))

    def losses(with_branch: bool) -> list[Tensor]:
        features = first(torch.ones(2, 4)).tanh()
        deep = second(features)
        return [(deep - 1).square().mean(), ((deep if with_branch else features) + 1).square().mean()]

    optimizer.backward(losses(True))
    optimizer.zero_grad()
    given = losses(False)
    alone = torch.autograd.grad(given[0], list(second.parameters()), retain_graph=True)
    optimizer.backward(given)
    assert optimizer.diagnostics.weights is not None
    weight = float(optimizer.diagnostics.weights[0])
    for parameter, gradient in zip(second.parameters(), alone):
        # Still shared, with a row of zeros for the second task: not that task's row of the step before.
        torch.testing.assert_close(parameter.grad, weight * gradient)


def test_given_sets_sum_what_is_outside() -> None:
    # A loss that reaches both heads: the graph would take the heads as shared.
    def losses(model: TwoHeads) -> list[Tensor]:
        out = model(torch.linspace(-1, 1, 48).view(8, 6))
        return [(out["a"] + out["b"] - 1).square().mean(), (out["b"] + 1).square().mean()]

    torch.manual_seed(1)
    model = TwoHeads().eval()
    both = losses(model)
    sum(both).backward(retain_graph=True)  # type: ignore[union-attr]
    plain = gradients(model)
    model.zero_grad()
    sgd(model, shared=model.trunk).backward(both)
    given = gradients(model)
    torch.testing.assert_close(given["heads.b.weight"], plain["heads.b.weight"])
    assert not torch.allclose(given["trunk.0.weight"], plain["trunk.0.weight"])  # type: ignore[arg-type]
    model.zero_grad()
    sgd(model).backward(losses(model))
    assert not torch.allclose(gradients(model)["heads.b.weight"], plain["heads.b.weight"])  # type: ignore[arg-type]
    model.zero_grad()
    sgd(model, shared=model.trunk.parameters()).backward(losses(model))
    assert same(gradients(model), given)


def test_sets_stay_while_tasks_come_and_go() -> None:
    model = TwoHeads(("a", "b", "c"))
    optimizer = sgd(model, tasks=("a", "b", "c"))
    data = torch.randn(8, 6)
    optimizer.backward({**model.losses(data), "c": None})
    optimizer.zero_grad()
    optimizer.backward({**model.losses(data), "a": None, "b": None})
    assert model.trunk[0].weight.grad is not None and model.heads["a"].weight.grad is None
    optimizer.zero_grad()
    optimizer.backward(model.losses(data))
    assert optimizer.diagnostics.tasks == ("a", "b", "c")


def test_tied_weights_and_memory_formats() -> None:
    torch.manual_seed(1)
    trunk = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    linear = nn.Linear(4, 4)
    model = nn.ModuleList([trunk, linear])
    features = trunk(torch.randn(2, 3, 8, 8)).mean((2, 3))
    tied = linear(linear(features).tanh())
    optimizer = sgd(model)
    losses = [tied.square().mean(), 3 * tied.square().mean()]
    (losses[0] + losses[1]).backward(retain_graph=True)
    expected, strides = gradients(model), trunk.weight.grad.stride()  # type: ignore[union-attr]
    model.zero_grad()
    optimizer.backward(losses)
    assert trunk.weight.grad is not None and trunk.weight.grad.stride() == strides == trunk.weight.stride()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name])


def test_mixed_dtypes_in_one_model() -> None:
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4).bfloat16()
    model = nn.ModuleList([first, second])
    out = second(first(torch.randn(8, 4).double()).bfloat16()).float()
    sgd(model).backward([(out - 1).square().mean(), (out + 1).square().mean()])
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())


def test_gradients_that_autograd_shares_are_copied() -> None:
    # The gradient of a sum is an expanded scalar, and one tensor serves both parameters.
    left, right, common = (nn.Parameter(torch.ones(3)) for _ in range(3))
    optimizer = PCGrad(torch.optim.SGD([left, right, common], lr=0.1))
    optimizer.backward([(left + right + common).sum(), (2 * common).sum()])
    left.grad.mul_(5)  # type: ignore[union-attr]
    assert right.grad.tolist() == [1, 1, 1] and left.grad.is_contiguous()  # type: ignore[union-attr]


def test_plain_tensors_are_parameters_too() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = PCGrad(torch.optim.SGD([weight], lr=1.0))
    data = torch.eye(3, requires_grad=True)  # a leaf that nobody trains: no warning
    optimizer.backward([(data @ weight)[0], -(data @ weight)[:2].sum()])
    assert weight.grad is not None and optimizer.diagnostics.conflict_share == 1
    # g1 = (1, 0, 0) and g2 = (-1, -1, 0): g1 loses ⟨g1, g2⟩/2·g2, and g2 loses ⟨g2, g1⟩·g1.
    torch.testing.assert_close(weight.grad, torch.tensor([0.5, -0.5, 0]) + torch.tensor([0.0, -1, 0]))


def test_sparse_gradients_of_one_task_pass_and_shared_ones_are_refused() -> None:
    table, trunk = nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1)
    model = nn.ModuleList([table, trunk])
    one, two = trunk(table(torch.tensor([1, 2]))).mean(), trunk(torch.ones(3)).mean()
    sgd(model).backward([one, two])
    assert table.weight.grad is not None and table.weight.grad.is_sparse
    shared = trunk(table(torch.tensor([1, 2])))
    with pytest.raises(TypeError, match="sparse"):
        sgd(model).backward([shared.mean(), -shared.sum()])


@pytest.mark.parametrize("region", ["trunk", "all"])
@pytest.mark.parametrize("given", [False, True])
def test_compiled_equals_eager(region: str, given: bool) -> None:
    # aot_eager makes the same single autograd node as inductor, without a C++ compiler.
    torch.manual_seed(1)
    model = TwoHeads(("a", "b", "c"))
    twin = TwoHeads(("a", "b", "c"))
    twin.load_state_dict(model.state_dict())
    compiled: nn.Module = twin
    torch._dynamo.reset()
    if region == "trunk":
        twin.trunk.compile(backend="aot_eager")
    else:
        compiled = torch.compile(twin, backend="aot_eager")  # type: ignore[assignment]
    optimizers = [sgd(m, shared=m.trunk if given else None) for m in (model, twin)]
    for index in range(3):
        data = torch.randn(8, 6)
        for optimizer, forward in zip(optimizers, (model, compiled)):
            outputs = forward(data)
            optimizer.zero_grad()
            optimizer.backward([(out - (-1) ** i).square().mean() for i, out in enumerate(outputs.values())])
        eager, other = gradients(model), gradients(twin)
        for name in eager:
            torch.testing.assert_close(other[name], eager[name], rtol=1e-5, atol=1e-7, msg=f"{name} at {index}")
        assert other["unused"] is None
        left, right = (optimizer.diagnostics.gramian for optimizer in optimizers)
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-9)
        for optimizer in optimizers:
            optimizer.step()


def test_compiled_with_a_head_that_starts_at_zero_asks_for_the_sets() -> None:
    model = TwoHeads(("a", "b"))
    nn.init.zeros_(model.heads["a"].weight)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    losses = [(out - 1).square().mean() for out in compiled(torch.randn(8, 6)).values()]
    with pytest.raises(ValueError, match=r"share no parameter.*torch\.compile.*shared="):
        sgd(model).backward(losses)
