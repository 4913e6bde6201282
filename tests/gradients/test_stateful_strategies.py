"""Strategies with memory, learned weights or several samples: against plain loops, through the optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtlsearch import MultiTaskOptimizer, get_strategy
from mtlsearch.gradients import Step

from .helpers import TwoHeads, gradients, jacobian, ready, relative_error, same

NAMES = ("a", "b", "c")


def series(length: int) -> tuple[list[Tensor], list[Tensor]]:
    rows = [jacobian("conflicting", 3, torch.float64, seed=seed, width=60) for seed in range(length)]
    losses = [
        torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) + 0.2 for i in range(length)
    ]
    return rows, losses


def simplex_point(point: Tensor) -> Tensor:
    """Projection on the simplex by bisection on the threshold: slow, and another way than ours."""
    low, high = float(point.min()) - 1, float(point.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((point - middle).clamp(min=0).sum()) > 1 else (low, middle)
    return (point - low).clamp(min=0)


def test_moco_is_its_recursion() -> None:
    strategy = get_strategy("moco", beta=0.4, gamma=0.03, rho=0.1)
    y, share = torch.zeros(3, 60, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    shares = []
    for index, rows in enumerate(series(6)[0]):
        root = (index + 1) ** 0.5
        y = y - 0.4 / root * (y - rows)
        share = simplex_point(share - 0.03 / root * (y @ y.T + 0.1 * torch.eye(3)) @ share)
        shares.append(share)
        got = strategy.combine(rows, Step(index=index))
        assert relative_error(got, share @ y, rows) <= 1e-12
    assert float((shares[0] - shares[-1]).abs().max()) > 0.01, "λ must have moved"


def test_db_mtl_is_its_recursion() -> None:
    strategy = get_strategy("db_mtl", beta=0.7, sigma=0.5)
    average = torch.zeros(3, 60, dtype=torch.float64)
    for index, (rows, losses) in enumerate(zip(*series(6))):
        beta = 0.7 / (index + 1) ** 0.5
        average = beta * average + (1 - beta) * rows / losses[:, None]
        lengths = average.norm(dim=1)
        expected = lengths.max() * (average / lengths[:, None]).sum(0)
        got = strategy.combine(rows, Step(index=index, losses=losses))
        assert relative_error(got, expected, rows) <= 1e-12


def test_excess_mtl_is_its_recursion() -> None:
    strategy = get_strategy("excess_mtl", eta=0.5, warmup=2)
    squares, excesses = torch.zeros(3, 60, dtype=torch.float64), []
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for index, rows in enumerate(series(6)[0]):
        squares += rows**2
        excesses.append((rows**2 / squares.sqrt()).sum(1))
        if index >= 2:
            weights = weights * torch.exp(0.5 * excesses[-1] / torch.stack(excesses[:2]).mean(0))
            weights = weights / weights.sum()
        got = strategy.combine(rows, Step(index=index))
        assert relative_error(got, weights @ rows, rows) <= 1e-12
    assert float(weights.max() - weights.min()) > 0.01, "weights must have moved"


@pytest.mark.parametrize("name", ["moco", "db_mtl", "excess_mtl"])
def test_memory_starts_anew_when_the_columns_change(name: str) -> None:
    strategy, fresh = get_strategy(name), get_strategy(name)
    wide, narrow = (
        jacobian("random", 2, torch.float64, width=80),
        jacobian("random", 2, torch.float64, width=50),
    )
    losses = torch.ones(2, dtype=torch.float64)
    strategy.combine(wide, Step(losses=losses))
    if name == "moco":  # λ is of the tasks, not of the columns
        fresh.shares = strategy.shares.clone()  # type: ignore[attr-defined]
    step = Step(index=1, losses=losses)
    assert torch.equal(strategy.combine(narrow, step), fresh.combine(narrow, step))


def test_gradnorm_weighs_and_trains_as_the_paper_says() -> None:
    strategy = ready("gradnorm", 3, alpha=1.5)
    weights = strategy.parameters()
    rows, losses = series(3)
    step = Step(tasks=(0, 1, 2), losses=losses[0])
    assert relative_error(strategy.combine(rows[0], step), rows[0].sum(0), rows[0]) <= 1e-12
    with torch.no_grad():
        for parameter, value in zip(weights, (2.0, -0.5, 1.0)):
            parameter.fill_(value)
    step = Step(index=1, tasks=(0, 1, 2), losses=losses[1])
    got = strategy.combine(rows[1], step)
    # Negative counts as 0, and the rest sums to 3.
    expected = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(weights).detach().double(), expected)
    assert relative_error(got, expected @ rows[1], rows[1]) <= 1e-12
    # The gradient of Σ|w_t‖g_t‖ − target| by autograd, with the target constant.
    w = expected.clone().requires_grad_()
    norms = w * rows[1].norm(dim=1)
    rates = losses[1] / losses[0]
    target = (norms.mean() * (rates / rates.mean()) ** 1.5).detach()
    (norms - target).abs().sum().backward()
    torch.testing.assert_close(torch.stack(strategy.own_gradients(step)), w.grad)  # type: ignore[arg-type]


def test_imtl_scales_losses_and_balances_their_gradients() -> None:
    strategy = ready("imtl", 3)
    scales = torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip(strategy.parameters(), scales):
            parameter.copy_(value)
    (rows,), (losses,) = series(1)
    step = Step(tasks=(0, 1, 2), losses=losses)
    scaled = scales.float().exp().double()[:, None] * rows  # learned numbers are float32
    expected = get_strategy("imtl_g").combine(scaled)
    assert relative_error(strategy.combine(rows, step), expected, rows) <= 1e-6
    own = torch.stack(strategy.own_gradients(step)).double()  # type: ignore[arg-type]
    torch.testing.assert_close(own, scales.exp() * losses - 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gradnorm", "imtl", "db_mtl"])
def test_losses_are_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs the losses.*Step\(losses=losses\)"):
        strategy = ready(name, 2)
        strategy.combine(torch.ones(2, 3))
        strategy.own_gradients(Step(tasks=(0, 1)))


@pytest.mark.parametrize("name", ["gradnorm", "imtl"])
def test_learned_weights_want_their_tasks(name: str) -> None:
    with pytest.raises(ValueError, match=r"must know them first.*tasks=names"):
        get_strategy(name).combine(torch.ones(2, 3), Step(losses=torch.ones(2)))


def batch(seed: int = 0) -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(seed))


def build(name: str, **hyperparameters: object) -> tuple[TwoHeads, MultiTaskOptimizer]:
    torch.manual_seed(7)
    model = TwoHeads(NAMES)
    model.eval()
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, MultiTaskOptimizer(plain, get_strategy(name, **hyperparameters), tasks=NAMES)


@pytest.mark.parametrize("name", ["gradnorm", "imtl", "db_mtl", "excess_mtl"])
def test_loss_weights_reach_the_heads(name: str) -> None:
    model, optimizer = build(name)
    losses = model.losses(batch())
    losses["a"].backward(retain_graph=True)
    alone = model.heads["a"].weight.grad.clone()  # type: ignore[union-attr]
    model.zero_grad()
    for parameter, value in zip(optimizer.strategy.parameters(), (1.5, 0.5, 1.0)):
        parameter.data.fill_(value)
    weight = {
        "gradnorm": 1.5,
        "imtl": math.exp(1.5),
        "db_mtl": 1 / float(losses["a"].detach()),
        "excess_mtl": 1 / 3,
    }[name]
    optimizer.backward(losses)
    torch.testing.assert_close(model.heads["a"].weight.grad, weight * alone)


@pytest.mark.parametrize("name", ["moco", "mgda", "cr_mogm", "gradvac", "rgw", "graddrop"])
def test_gradient_weights_leave_the_heads_alone(name: str) -> None:
    model, optimizer = build(name)
    losses = model.losses(batch())
    (losses["a"] + losses["b"] + losses["c"]).backward(retain_graph=True)
    alone = gradients(model)
    model.zero_grad()
    optimizer.backward(losses)
    got = gradients(model)
    heads = [key for key in got if key.startswith("heads.")]
    assert same({key: got[key] for key in heads}, {key: alone[key] for key in heads})


@pytest.mark.parametrize(("name", "samples"), [("modo", 2), ("sdmgrad", 3)])
class TestSamples:
    def test_combination_is_that_of_the_jacobians(self, name: str, samples: int) -> None:
        model, optimizer = build(name)
        jacobians, heads = [], []
        for index in range(samples):
            rows = []
            for loss in model.losses(batch(index)).values():
                model.zero_grad()
                loss.backward(retain_graph=True)
                found = gradients(model)
                rows.append(torch.cat([found[f"trunk.{n}"].flatten() for n, _ in model.trunk.named_parameters()]))  # type: ignore[union-attr]
                if found["heads.b.weight"] is not None:
                    heads.append(found["heads.b.weight"])
            jacobians.append(torch.stack(rows))
        model.zero_grad()
        for index in range(samples):
            optimizer.backward(model.losses(batch(index)), combine=index == samples - 1)
        expected = get_strategy(name).combine(torch.stack(jacobians))
        found = gradients(model)
        got = torch.cat([found[f"trunk.{n}"].flatten() for n, _ in model.trunk.named_parameters()])  # type: ignore[union-attr]
        # The columns are the same, so only rounding differs.
        assert relative_error(got, expected, jacobians[-1]) <= 1e-4
        torch.testing.assert_close(found["heads.b.weight"], torch.stack(heads).mean(0))

    def test_fewer_is_an_error(self, name: str, samples: int) -> None:
        model, optimizer = build(name)
        with pytest.raises(ValueError, match=rf"needs {samples} independent samples.*task 'a' has 1.*combine=False"):
            optimizer.backward(model.losses(batch()))
        assert all(p.grad is None for p in model.parameters())
        with pytest.raises(RuntimeError, match="nothing to combine"):
            optimizer.combine()  # nothing is left behind

    def test_more_is_an_error(self, name: str, samples: int) -> None:
        model, optimizer = build(name)
        for _ in range(samples):
            optimizer.backward(model.losses(batch()), combine=False)
        with pytest.raises(ValueError, match=rf"'a' has been given {samples} times already.*call combine\(\)"):
            optimizer.backward(model.losses(batch()), combine=False)

    def test_a_bare_jacobian_has_its_samples(self, name: str, samples: int) -> None:
        with pytest.raises(ValueError, match=rf"must be \({samples}, T, P\).*got shape \(2, 3\)"):
            get_strategy(name).combine(torch.ones(2, 3))


@pytest.mark.parametrize("of", ["imtl", "rlw", "cr_mogm", "graddrop"])
def test_cr_mogm_averages_gramian_weights(of: str) -> None:
    with pytest.raises(ValueError, match=rf"must be a Gramian strategy.*of='{of}'"):
        get_strategy("cr_mogm", of=of)
    with pytest.raises(ValueError, match=r"did you mean 'mgda'\?"):
        get_strategy("cr_mogm", of="mgd")


def test_cr_mogm_saves_what_it_averages() -> None:
    rows, _ = series(6)
    first, second = (get_strategy("cr_mogm", of="gradvac") for _ in range(2))
    for index in range(4):
        first.combine(rows[index], Step(index=index))
    second.load_state_dict(first.state_dict())
    for index in range(4, 6):
        step = Step(index=index)
        assert torch.equal(first.combine(rows[index], step), second.combine(rows[index], step))


def test_state_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'gradvac' keeps state for targets.*\['averages'\]"):
        get_strategy("gradvac").load_state_dict({"averages": torch.ones(2)})
    with pytest.raises(ValueError, match=r"'pcgrad' keeps no state"):
        get_strategy("pcgrad").load_state_dict({"averages": torch.ones(2)})
    with pytest.raises(ValueError, match=r"must be one of min, median, rmse, but got scale='max'"):
        get_strategy("aligned_mtl", scale="max")


@pytest.mark.parametrize("name", ["gls", "stch", "famo", "dwa", "rlw"])
def test_loss_weights_that_wait_are_seen_as_waiting(name: str) -> None:
    model, optimizer = build(name)
    optimizer.backward({"a": model.losses(batch())["a"]}, combine=False)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="gradients of a wait to be combined"):
        optimizer.step()
    optimizer.backward({"b": model.losses(batch())["b"]}, combine=False)
    optimizer.combine()
    assert optimizer.diagnostics.tasks == ("a", "b")
    assert model.trunk[0].weight.grad is not None


@pytest.mark.parametrize("name", ["gls", "famo", "imtl_l", "gradnorm", "imtl", "db_mtl", "nash_mtl", "fairgrad"])
def test_training_goes_down(name: str) -> None:
    torch.manual_seed(0)
    model = TwoHeads(NAMES)
    optimizer = MultiTaskOptimizer(torch.optim.Adam(model.parameters(), lr=1e-2), name, tasks=NAMES)
    inputs = batch()
    first = [float(loss.detach()) for loss in model.losses(inputs).values()]
    for _ in range(60):
        optimizer.zero_grad()
        optimizer.backward(model.losses(inputs))
        optimizer.step()
    last = [float(loss.detach()) for loss in model.losses(inputs).values()]
    assert max(after / before for after, before in zip(last, first)) < 0.5


def test_a_later_sample_may_make_a_parameter_shared() -> None:
    common, late = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.SGD([common, late], lr=0.1)
    optimizer = MultiTaskOptimizer(plain, get_strategy("modo", gamma=0.05, rho=0.0), tasks=2)
    # Only task 0 reaches `late` in the first sample, both in the second.
    optimizer.backward([3 * common.sum() + late.sum(), -common.sum()], combine=False)
    optimizer.backward([common.sum() + late.sum(), -2 * common.sum() + 2 * late.sum()])
    first = torch.tensor([[3.0, 3, 1, 1, 1], [-1, -1, 0, 0, 0]])
    second = torch.tensor([[1.0, 1, 1, 1, 1], [-2, -2, 2, 2, 2]])
    expected = get_strategy("modo", gamma=0.05, rho=0.0).combine(torch.stack([first, second]))
    torch.testing.assert_close(torch.cat([common.grad, late.grad]), expected)  # type: ignore[list-item]
