"""MultiTaskOptimizer as an optimizer: what it computes, schedulers, scalers, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mtlsearch import MultiTaskOptimizer, PCGrad, get_strategy, strategies
from mtlsearch.gradients import strategy_info
from mtlsearch.gradients.registry import as_strategy
from mtlsearch.gradients.strategy import Step

from .helpers import TwoHeads, gradients, pcgrad_oracle, relative_error, same

TASKS = ("a", "b", "c")


def build(
    strategy: str | Callable[[Tensor], Tensor] = "pcgrad",
    tasks: tuple[str, ...] = TASKS,
    lr: float = 0.1,
    seed: int = 0,
) -> tuple[TwoHeads, MultiTaskOptimizer]:
    torch.manual_seed(7)
    model = TwoHeads(tasks)
    plain = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, MultiTaskOptimizer(plain, copy.deepcopy(strategy), tasks=tasks, seed=seed)


def batch(index: int = 0) -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(index))


def samples_of(optimizer: MultiTaskOptimizer) -> int:
    return getattr(optimizer.strategy, "samples", 1)


def give(
    optimizer: MultiTaskOptimizer,
    losses: Callable[[], dict[str, Tensor]],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """One combination: `losses` evaluated and given as often as the strategy wants samples."""
    for left in reversed(range(samples_of(optimizer))):
        optimizer.backward(losses(), combine=left == 0, scaler=scaler)


def train(model: TwoHeads, optimizer: MultiTaskOptimizer, steps: range) -> None:
    for index in steps:
        optimizer.zero_grad()
        give(optimizer, lambda index=index: model.losses(batch(index)))  # type: ignore[misc]
        optimizer.step()


def task_gradients(model: TwoHeads, losses: dict[str, Tensor]) -> dict[str, dict[str, Tensor | None]]:
    """What plain backward of each task alone puts into `.grad`."""
    found = {}
    for task, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        found[task] = gradients(model)
    model.zero_grad()
    return found


def flat_trunk(model: TwoHeads, by_name: dict[str, Tensor | None]) -> Tensor:
    return torch.cat([by_name[f"trunk.{name}"].flatten() for name, _ in model.trunk.named_parameters()])  # type: ignore[union-attr]


def test_step_is_the_oracle_on_the_trunk_and_plain_on_the_heads() -> None:
    model, optimizer = build()
    losses = model.losses(batch())
    alone = task_gradients(model, losses)
    optimizer.backward(losses)
    got = gradients(model)
    for name in got:
        if name.startswith("heads."):
            assert torch.equal(got[name], alone[name.split(".")[1]][name])  # type: ignore[arg-type]
    assert got["unused"] is None
    rows = torch.stack([flat_trunk(model, alone[task]) for task in TASKS])
    from mtlsearch.gradients.strategies.pcgrad import random_orders

    expected = pcgrad_oracle(rows, random_orders(3, Step()).tolist())
    assert relative_error(flat_trunk(model, got), expected, rows) <= 1e-5
    # Two opposed tasks: surgery must have changed something, or the test shows nothing.
    assert relative_error(rows.sum(0), expected, rows) > 1e-3

    seen = optimizer.diagnostics
    lengths = rows.double().norm(dim=1)
    torch.testing.assert_close(seen.norms, lengths, rtol=1e-6, atol=0)
    cosine = (rows @ rows.T).double() / torch.outer(lengths, lengths)
    torch.testing.assert_close(seen.cosines, cosine, rtol=0, atol=1e-5)
    assert seen.tasks == TASKS and seen.weights is not None and seen.weights.shape == (3,)
    assert seen.conflict_share == pytest.approx(float((cosine.triu(1) < 0).sum()) / 3)


@pytest.mark.parametrize("strategy", strategies())
def test_statistics_update_once_a_step_and_sample(strategy: str) -> None:
    model, optimizer = build(strategy)
    train(model, optimizer, range(4))
    assert int(model.trunk[1].num_batches_tracked) == 4 * samples_of(optimizer)


@pytest.mark.parametrize("strategy", strategies())
def test_bfloat16_autocast(strategy: str) -> None:
    model, optimizer = build(strategy)
    give(optimizer, lambda: model.losses(batch()))
    exact = flat_trunk(model, gradients(model))
    model, optimizer = build(strategy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # inside autocast, where matrix products would lose their digits
        give(optimizer, lambda: model.losses(batch()))
    rough = flat_trunk(model, gradients(model))
    assert rough.dtype == torch.float32
    # GradDrop decides by signs, so gradients near zero change sides.
    assert float((rough - exact).norm() / exact.norm()) < (0.3 if strategy == "graddrop" else 0.1)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=6),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, 4),
            ],
            [2],
        ),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ],
    ids=["OneCycleLR", "SequentialLR", "ReduceLROnPlateau"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # of SequentialLR's own step, in torch 2.5
@pytest.mark.parametrize("strategy", ["pcgrad", "uncertainty"])
def test_schedulers_drive_the_wrapped_optimizer(strategy: str, schedule: Callable[..., object]) -> None:
    model, optimizer = build(strategy)
    scheduler = schedule(optimizer)  # before the first backward
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    expected = schedule(reference)
    seen, wanted = [], []
    for index in range(5):
        train(model, optimizer, range(index, index + 1))
        reference.step()
        for s in (scheduler, expected):
            s.step(*([1.0] if "Plateau" in type(s).__name__ else []))  # type: ignore[attr-defined]
        groups = optimizer.optimizer.param_groups
        seen.append([(group["lr"], group["momentum"]) for group in groups])
        wanted.append([(g["lr"], g["momentum"]) for g in reference.param_groups] * len(groups))
    assert seen == wanted and len({row[0] for row in seen}) > 1


def test_uncertainty_trains_its_variances_as_the_formula_says() -> None:
    model, _ = build("weighted_sum")
    plain = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    strategy = get_strategy("uncertainty", initial_log_variance=0.3)
    optimizer = MultiTaskOptimizer(plain, strategy, tasks=TASKS)
    own = optimizer.param_groups[-1]
    assert own["weight_decay"] == 0 and len(own["params"]) == 3
    losses = model.losses(batch())
    alone = task_gradients(model, losses)
    optimizer.backward({**losses, "c": None})
    for s, loss in zip(own["params"], [losses["a"], losses["b"]]):
        expected = -0.5 * torch.exp(-s.detach()) * loss.detach() + 0.5
        torch.testing.assert_close(s.grad, expected)
    assert own["params"][2].grad is None
    factor = 0.5 * torch.exp(torch.tensor(-0.3))
    head = "heads.a.weight"
    torch.testing.assert_close(gradients(model)[head], factor * alone["a"][head])
    torch.testing.assert_close(optimizer.diagnostics.weights, factor.expand(2))
    optimizer.step()
    assert strategy.log_variances["c"] == pytest.approx(0.3) != strategy.log_variances["a"]


def test_loss_strategies_make_one_backward() -> None:
    calls = []
    model, optimizer = build("uncertainty")
    model.trunk[0].weight.register_hook(lambda gradient: calls.append(1))
    optimizer.backward(model.losses(batch()))
    assert len(calls) == 1
    with pytest.raises(RuntimeError, match="loss strategies do one backward"):
        _ = optimizer.diagnostics.cosines


def test_static_weights_by_name_reach_the_heads() -> None:
    model, optimizer = build(get_strategy("weighted_sum", weights={"a": 2, "b": 0.5, "c": 0}))
    losses = model.losses(batch())
    alone = task_gradients(model, losses)
    optimizer.backward(losses)
    torch.testing.assert_close(gradients(model)["heads.a.bias"], 2 * alone["a"]["heads.a.bias"])


@pytest.mark.parametrize("name", ["IMTLG", "PCGrad"])
def test_torchjd_aggregator_gets_the_jacobian(name: str) -> None:
    peer = getattr(pytest.importorskip("torchjd.aggregation"), name)()
    model, optimizer = build(peer, ("a", "b"))
    losses = model.losses(batch())
    alone = task_gradients(model, losses)
    optimizer.backward(losses)
    rows = torch.stack([flat_trunk(model, alone[task]) for task in ("a", "b")])
    # PCGrad of two tasks and IMTL-G do not depend on the columns' order.
    assert relative_error(flat_trunk(model, gradients(model)), peer(rows), rows) <= 1e-5
    assert optimizer.diagnostics.weights is None and optimizer.diagnostics.cosines.shape == (2, 2)


def test_sequences_tensors_and_the_old_name() -> None:
    results = []
    for give in (lambda x: list(x.values()), lambda x: torch.stack(list(x.values())), dict):
        torch.manual_seed(7)
        model = TwoHeads(("a", "b"))
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1))
        optimizer.pc_backward(give(model.losses(batch())))
        results.append(gradients(model))
    for other in results[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, results[0][name])


def test_is_an_optimizer_with_groups_hooks_and_clipping() -> None:
    model, optimizer = build()
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups is optimizer.optimizer.param_groups and optimizer.state is optimizer.optimizer.state
    assert optimizer.defaults is optimizer.optimizer.defaults
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append("saved"))
    extra = nn.Linear(8, 2)
    model.heads["a"] = extra
    optimizer.add_param_group({"params": list(extra.parameters()), "lr": 0.01})
    optimizer.backward(model.losses(batch()))
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert float(norm) > 1e-3
    before, old = extra.weight.detach().clone(), model.trunk[0].weight.detach().clone()
    optimizer.step()
    assert 0 < float((model.trunk[0].weight.detach() - old).norm()) <= 1.001e-3 * 0.1
    assert 0 < float((extra.weight.detach() - before).norm()) <= 1.001e-3 * 0.01
    optimizer.state_dict()
    assert seen == ["before", "after", "saved"]
    assert "PCGradStrategy" in repr(optimizer) and "SGD" in repr(optimizer)
    wrapped = optimizer.optimizer
    wrapped.load_state_dict(wrapped.state_dict())  # replaces its groups and state
    assert optimizer.param_groups is wrapped.param_groups and optimizer.state is wrapped.state


def test_frozen_and_thawed_parameters() -> None:
    model, optimizer = build()
    model.trunk[0].requires_grad_(False)
    train(model, optimizer, range(1))
    assert model.trunk[0].weight.grad is None
    model.trunk[0].requires_grad_(True)
    train(model, optimizer, range(1, 2))
    assert model.trunk[0].weight.grad is not None
    model.trunk[0].requires_grad_(False)
    train(model, optimizer, range(2, 3))
    assert model.trunk[0].weight.grad is None and model.trunk[3].weight.grad is not None


def test_no_conflict_gives_the_sum() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = model(torch.randn(8, 4)).square().mean()
    (3 * loss).backward(retain_graph=True)
    expected = gradients(model)
    model.zero_grad()
    optimizer.backward([loss, 2 * loss])
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name])
    assert optimizer.diagnostics.conflict_share == 0


class SeesTheRows:
    """A strategy that is not scale-equivariant: it would notice scaled gradients."""

    def __call__(self, jacobian: Tensor) -> Tensor:
        return jacobian.sum(0) / (1 + jacobian.norm())


def test_rows_are_unscaled_for_strategies_that_see_them() -> None:
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=65536.0)):
        model, optimizer = build(SeesTheRows())
        optimizer.backward(model.losses(batch()), scaler=scaler)
        if scaler is not None:
            scaler.unscale_(optimizer)
        results.append(gradients(model))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value)


def test_every_registered_strategy_is_resolved_by_name() -> None:
    for name in strategies():
        assert type(as_strategy(name)) is strategy_info(name).strategy


def test_gradients_do_not_alias_each_other_or_the_rows() -> None:
    model, optimizer = build()
    optimizer.backward(model.losses(batch()))
    kept = {n: p.grad for n, p in model.named_parameters()}
    copies = gradients(model)
    optimizer.zero_grad()
    optimizer.backward(model.losses(batch(1)))
    assert same(copies, kept), "a kept .grad must not change with the next step"
