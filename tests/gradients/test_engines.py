"""The engines agree with each other where they promise to, and each refuses what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtlsearch import MultiTaskOptimizer, PCGrad, strategies
from mtlsearch.gradients import GramianStrategy, Strategy, get_strategy
from mtlsearch.gradients.engines.rows import RowsEngine
from mtlsearch.gradients.linear import LinearUses, ghost_pays
from mtlsearch.gradients.tape import Tape

from .helpers import TwoHeads, gradients, same

TASKS = ("a", "b", "c")


class Trunk(nn.Module):
    """Linear layers in the ways that they are used."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(6, 12, bias=how != "no bias")
        self.second = nn.Linear(12, 12)
        if how == "parametrised":
            nn.utils.parametrizations.weight_norm(self.second)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "positions":
            x = x.unsqueeze(1).repeat(1, 3, 1) * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype).view(3, 1)
        x = self.first(x).tanh()
        if self.how == "checkpointed":
            x = checkpoint(lambda x: self.second(x).tanh(), x, use_reentrant=False)
        elif self.how == "offloaded":
            with torch.autograd.graph.save_on_cpu():
                x = self.second(x).tanh()
        elif self.how == "functional":
            x = F.linear(x, self.second.weight, self.second.bias).tanh()
        elif self.how == "matrix product":
            x = (x @ self.second.weight.t() + self.second.bias).tanh()
        else:
            x = self.second(x).tanh()
        if self.how == "used twice":
            x = self.second(x).tanh()
        if self.how == "used elsewhere":
            x = x + self.second.weight.square().mean()
        return x if x.ndim == 2 else x.mean(1)


class Model(nn.Module):
    def __init__(self, how: str = "plain", dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = Trunk(how)
        self.heads = nn.ModuleList(nn.Linear(12, 2) for _ in TASKS)
        self.skipped = nn.Linear(6, 2)  # only task "c" and "b" see it
        self.unused = nn.Parameter(torch.ones(2))
        self.to(dtype)

    def losses(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.trunk(inputs)
        outputs = [head(features) for head in self.heads]
        outputs[1] = outputs[1] + self.skipped(inputs)
        outputs[2] = outputs[2] - self.skipped(inputs)
        return {t: (out - (-1.0) ** i * (1 + i)).square().mean() for i, (t, out) in enumerate(zip(TASKS, outputs))}


def inputs_of(kind: str, dtype: torch.dtype = torch.float64) -> Tensor:
    inputs = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if kind == "repeated":
        inputs[4:] = inputs[:3]
    elif kind == "zero rows":
        inputs[2:5] = 0
    elif kind == "all zero":
        inputs.zero_()
    return inputs.to(dtype)


def step(model: Any, inputs: Tensor, strategy: str | Strategy = "pcgrad", **options: Any) -> dict[str, Tensor | None]:
    """The gradients after the second of two backwards on the same parameters: with and without known sets."""
    optimizer = MultiTaskOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), strategy, TASKS, **options)
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward(model.losses(inputs))
    return gradients(model)


def close(left: dict[str, Tensor | None], right: dict[str, Tensor | None], tolerance: float) -> None:
    length = sum(float(g.double().square().sum()) for g in right.values() if g is not None) ** 0.5
    for name, gradient in right.items():
        assert (gradient is None) == (left[name] is None), name
        if gradient is not None:
            assert float((left[name] - gradient).double().norm()) <= tolerance * length, name


@pytest.fixture
def ghosts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights whose gradients were never formed, as they are combined."""
    seen: list[tuple[int, ...]] = []
    combined = LinearUses.combined

    def noted(uses: LinearUses, *arguments: Any) -> Tensor:
        seen.append(tuple(uses.weight.shape))
        return combined(uses, *arguments)

    monkeypatch.setattr(LinearUses, "combined", noted)
    return seen


LINEAR = ("plain", "no bias", "positions", "functional", "matrix product", "used twice")
OTHER = ("parametrised", "checkpointed", "offloaded", "used elsewhere")


@pytest.mark.parametrize("kind", ["random", "repeated", "zero rows", "all zero"])
@pytest.mark.parametrize("how", [*LINEAR, *OTHER])
def test_ghost_equals_rows(how: str, kind: str, ghosts: list[tuple[int, ...]]) -> None:
    inputs = inputs_of(kind)
    plain = step(Model("plain" if how in ("checkpointed", "offloaded") else how), inputs, engine="rows")
    assert not ghosts
    close(step(Model(how), inputs, engine="ghost"), plain, 1e-10)
    # In both backwards: two layers of the trunk, and one that two tasks share.
    assert ghosts.count((12, 12)) == (2 if how in LINEAR else 0)
    assert ghosts.count((12, 6)) == ghosts.count((2, 6)) == 2


@pytest.mark.parametrize("name", [n for n in strategies() if isinstance(get_strategy(n), GramianStrategy)])
def test_every_gramian_strategy_is_the_same_by_ghost(name: str, ghosts: list[tuple[int, ...]]) -> None:
    close(step(Model(), inputs_of("random"), name, engine="ghost"), step(Model(), inputs_of("random"), name), 1e-9)
    assert ghosts


def test_ghost_in_float32_is_as_near_to_float64_as_rows() -> None:
    # Correlated inputs and outputs near their targets: the sum over samples cancels.
    inputs = inputs_of("random") * 0.01 + 5
    exact = step(Model(), inputs, engine="rows")
    for engine in ("rows", "ghost"):
        close(step(Model(dtype=torch.float32), inputs.float(), engine=engine), exact, 1e-5)


def test_auto_picks_by_cost_layer_by_layer(ghosts: list[tuple[int, ...]]) -> None:
    model = nn.Sequential(nn.Linear(3, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    heads = nn.ModuleList(nn.Linear(256, 1) for _ in range(3))
    optimizer = PCGrad(torch.optim.SGD([*model.parameters(), *heads.parameters()], lr=0.1))

    def chosen(samples: int) -> set[tuple[int, ...]]:
        ghosts.clear()
        features = model(torch.randn(samples, 3))
        optimizer.backward([(head(features) - i).square().mean() for i, head in enumerate(heads)])
        return set(ghosts)

    assert chosen(16) == {(256, 256)}
    assert chosen(8192) == set()
    assert chosen(16) == {(256, 256)}


def test_cost_grows_with_samples_faster_for_ghost() -> None:
    weight = torch.zeros(1024, 1024, requires_grad=True)
    pays = []
    for samples in (16, 64, 256, 1024, 4096):
        loss = F.linear(torch.ones(samples, 1024), weight).sum()
        (nodes,) = Tape({0: loss, 1: loss * 2}).uses_of([weight]).values()
        pays.append(ghost_pays(nodes, weight, tasks=3))
    assert pays == sorted(pays, reverse=True) and pays[0] and not pays[-1]


@pytest.mark.parametrize("why", ["accumulation", "row strategy", "hook", "autocast", "compiled"])
def test_rows_where_ghosts_cannot_be(why: str, ghosts: list[tuple[int, ...]]) -> None:
    model = Model(dtype=torch.float32)
    strategy = "graddrop" if why == "row strategy" else "pcgrad"
    optimizer = MultiTaskOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), strategy, TASKS, engine="ghost", shared=model.trunk
    )
    if why == "hook":
        for weight in (model.trunk.first.weight, model.trunk.second.weight):
            weight.register_hook(lambda gradient: gradient * 2)
    if why == "compiled":
        model.trunk = torch.compile(model.trunk, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=why == "autocast"):
        losses = model.losses(inputs_of("random", torch.float32))
    optimizer.backward(losses, combine=why != "accumulation")
    if why == "accumulation":
        optimizer.combine()
    assert not ghosts


def test_hooks_on_weights_run_for_every_task() -> None:
    seen = []
    model = Model()
    model.trunk.second.weight.register_hook(lambda gradient: seen.append(gradient.norm()))
    step(model, inputs_of("random"), engine="ghost")
    assert len(seen) == 2 * len(TASKS)


def test_ghost_adds_to_existing_gradients_and_scales() -> None:
    model, inputs = Model(), inputs_of("random")
    once = step(model, inputs, engine="ghost")
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, engine="ghost")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer.backward(model.losses(inputs), scaler=scaler)
    for name, gradient in gradients(model).items():
        if gradient is not None:
            torch.testing.assert_close(gradient, once[name] * 1025)


def test_inputs_that_are_not_finite_do_not_hide() -> None:
    model, inputs = Model(), inputs_of("random")
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, engine="ghost")
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    inputs[0, 0] = torch.inf
    optimizer.backward(model.losses(inputs), scaler=scaler)
    assert not model.trunk.first.weight.grad.isfinite().any()


def test_reentrant_checkpoints_are_refused() -> None:
    model = TwoHeads()
    inputs = torch.randn(4, 6, requires_grad=True)
    features = checkpoint(model.trunk, inputs, use_reentrant=True)
    losses = [head(features).square().mean() for head in model.heads.values()]
    with pytest.raises(ValueError, match="use_reentrant=False"):
        PCGrad(torch.optim.SGD(model.parameters(), lr=0.1)).backward(losses)


def test_graph_kept_by_the_user_can_be_used_again() -> None:
    model = Model()
    losses = model.losses(inputs_of("random"))
    kept = torch.autograd.grad(losses["a"], model.trunk.first.weight, retain_graph=True)[0]
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS)
    optimizer.backward(losses)
    assert kept.isfinite().all()


class TestFeature:
    """Combining at the level of features: Sener and Koltun 2018."""

    @staticmethod
    def expected(model: TwoHeads, inputs: Tensor) -> dict[str, Tensor | None]:
        features = model.trunk(inputs).tanh()
        leaf = features.detach().requires_grad_()
        losses = [(h(leaf) - (-1) ** i).square().mean() for i, h in enumerate(model.heads.values())]
        jacobian = torch.stack([torch.autograd.grad(loss, leaf, retain_graph=True)[0].flatten() for loss in losses])
        sum(losses).backward()
        features.backward(get_strategy("pcgrad").combine(jacobian).view_as(features))
        return gradients(model)

    @pytest.mark.parametrize("given", [False, True])
    def test_is_the_combination_at_the_features(self, given: bool) -> None:
        torch.manual_seed(0)
        model = TwoHeads().double().eval()
        inputs = torch.randn(5, 6, dtype=torch.float64)
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine="feature")
        features = model.trunk(inputs).tanh()
        losses = [(h(features) - (-1) ** i).square().mean() for i, h in enumerate(model.heads.values())]
        optimizer.backward(losses, features=features if given else ())
        got = gradients(model)
        optimizer.zero_grad()
        close(got, self.expected(model, inputs), 1e-10)
        assert optimizer.diagnostics.gramian is not None

    def test_makes_one_trunk_backward(self) -> None:
        model, passes = TwoHeads(), []
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine="feature")
        model.trunk[0].register_forward_hook(lambda module, given, out: out.register_hook(passes.append) and None)
        optimizer.backward(model.losses(torch.randn(4, 6)))
        assert len(passes) == 1

    def test_features_that_losses_go_around(self) -> None:
        model = TwoHeads()
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine="feature")
        features = model.trunk(torch.randn(4, 6)).tanh()
        around = {t: head(features).mean() + model.trunk[0].weight.sum() for t, head in model.heads.items()}
        with pytest.raises(ValueError, match="around them too"):
            optimizer.backward(around, features=features)

    def test_calls_do_not_add_up(self) -> None:
        model = TwoHeads()
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine="feature")
        optimizer.backward(model.losses(torch.randn(4, 6)), combine=False)
        with pytest.raises(ValueError, match="features of its own"):
            optimizer.backward(model.losses(torch.randn(4, 6)))


class TestUpdateEvery:
    def test_in_between_the_weights_stay_and_heads_are_plain(self) -> None:
        model, inputs = Model(), inputs_of("random")
        for head in model.heads:  # alike, so that tasks with opposite targets conflict
            head.load_state_dict(model.heads[0].state_dict())
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, update_every=3)
        for index in range(4):
            optimizer.zero_grad()
            optimizer.backward(model.losses(inputs))
            got = gradients(model)
            optimizer.zero_grad()
            if index % 3 == 0:
                weights = optimizer.diagnostics.weights.clone()
                assert (weights != 1).any(), "the tasks conflict"
            else:
                assert torch.equal(optimizer.diagnostics.weights, weights)
                sum(w * loss for w, loss in zip(weights, model.losses(inputs).values())).backward()
                trunk = {name: p.grad.clone() for name, p in model.trunk.named_parameters()}
                optimizer.zero_grad()
                sum(model.losses(inputs).values()).backward()
                plain = gradients(model)
                for name, gradient in trunk.items():
                    torch.testing.assert_close(got[f"trunk.{name}"], gradient, rtol=1e-10, atol=1e-12)
                heads = [name for name in plain if name.startswith("heads")]
                assert same({n: got[n] for n in heads}, {n: plain[n] for n in heads})
                assert got["unused"] is None
            optimizer.zero_grad()

    def test_a_task_that_was_absent_has_weight_one(self) -> None:
        model, inputs = Model(), inputs_of("random")
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, update_every=2)
        optimizer.backward({**model.losses(inputs), "c": None})
        optimizer.backward(model.losses(inputs))
        assert optimizer.diagnostics.tasks == TASKS
        assert optimizer.diagnostics.weights[2] == 1

    def test_micro_batches_in_between(self) -> None:
        model, inputs = Model(), inputs_of("random")
        results = []
        for split in (False, True):
            optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, update_every=2)
            optimizer.backward(model.losses(inputs))
            optimizer.zero_grad()
            if split:
                for task, loss in model.losses(inputs).items():
                    optimizer.backward({task: loss}, combine=False)
                optimizer.combine()
            else:
                optimizer.backward(model.losses(inputs))
            results.append(gradients(model))
            optimizer.zero_grad()
        close(results[1], results[0], 1e-10)

    def test_resumes_bit_for_bit(self) -> None:
        def train(steps: int, state: Any, model: Model) -> tuple[Any, Model]:
            optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, update_every=3)
            if state is not None:
                optimizer.load_state_dict(state)
            for _ in range(steps):
                optimizer.zero_grad()
                optimizer.backward(model.losses(inputs_of("random")))
                optimizer.step()
            return optimizer.state_dict(), model

        _, whole = train(5, None, Model())
        _, halves = train(3, *train(2, None, Model()))
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters()))

    def test_an_overflow_leaves_the_weights(self) -> None:
        model, inputs = Model(), inputs_of("random")
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, update_every=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        optimizer.backward(model.losses(inputs * torch.inf), scaler=scaler)
        optimizer.zero_grad()
        optimizer.backward(model.losses(inputs), scaler=scaler)
        assert optimizer.diagnostics.weights.tolist() == [1, 1, 1]
        assert model.trunk.first.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(PCGrad, engine="fast"), "engine must be one of auto, rows, ghost, feature"),
        (partial(PCGrad, update_every=0), "update_every must be an integer of at least 1"),
        (partial(MultiTaskOptimizer, strategy="graddrop", update_every=2), "'graddrop' also weighs losses or combines"),
        (partial(MultiTaskOptimizer, strategy="dwa", engine="feature"), "engine='feature' needs a strategy that"),
        (partial(MultiTaskOptimizer, strategy="imtl", tasks=TASKS, update_every=5), "update_every=5 needs a strategy"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(make: Callable[..., object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(torch.optim.SGD(Model().parameters(), lr=0.1))


@pytest.mark.parametrize("options", [{"engine": "feature"}, {"update_every": 2}])
def test_a_compiled_model_without_sets_is_refused(options: dict[str, Any]) -> None:
    model = TwoHeads().eval()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), **options)
    with pytest.raises(ValueError, match=r"name it: shared=model\.backbone"):
        for _ in range(2):
            outputs = compiled(torch.randn(4, 6))
            optimizer.backward([(out - i).square().mean() for i, out in enumerate(outputs.values())])


class Taps(nn.Module):
    """Tasks that leave the trunk at several depths, in the ways of real models."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.embed = nn.Embedding(6, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, 6) for _ in TASKS)
        self.double()

    def losses(self, inputs: Tensor) -> dict[str, Tensor]:
        shallow = self.layers[0](self.embed(inputs.abs().mul(10).long() % 6).mean(1)).tanh()
        middle = shallow + self.layers[1](shallow).tanh()
        deep = self.layers[2](middle).tanh()
        outputs = [head(z) for head, z in zip(self.heads, (shallow, middle, deep))]
        if self.how == "branch of two":
            outputs = [self.heads[0](shallow), self.heads[1](deep), self.heads[2](deep)]
        elif self.how == "both depths":
            outputs[2] = outputs[2] + self.heads[0](shallow)
        elif self.how == "tied embedding":
            outputs[1] = outputs[1] + deep @ self.embed.weight.t()
        return {t: (out - (-1.0) ** i * (1 + i)).square().mean() for i, (t, out) in enumerate(zip(TASKS, outputs))}


@pytest.mark.parametrize("how", ["three depths", "branch of two", "both depths", "tied embedding"])
def test_tasks_that_leave_the_trunk_at_several_depths(how: str) -> None:
    model, inputs = Taps(how), inputs_of("random")
    shared = [model.embed.weight, *model.layers.parameters()]
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, shared=shared, update_every=2)
    optimizer.backward(model.losses(inputs))
    weights = optimizer.diagnostics.weights.clone()
    optimizer.zero_grad()
    optimizer.backward(model.losses(inputs))
    for parameter in shared:
        rows = [
            torch.autograd.grad(loss, parameter, allow_unused=True, retain_graph=True)[0]
            for loss in model.losses(inputs).values()
        ]
        mixed = sum(w * row for w, row in zip(weights, rows) if row is not None)
        torch.testing.assert_close(parameter.grad, mixed, rtol=1e-10, atol=1e-13)


def test_features_one_above_the_other_count_once() -> None:
    torch.manual_seed(0)
    lower, upper, heads = nn.Linear(3, 4), nn.Linear(4, 4), nn.ModuleList(nn.Linear(8, 1) for _ in range(2))
    optimizer = PCGrad(
        torch.optim.SGD([*lower.parameters(), *upper.parameters(), *heads.parameters()], 0.1), engine="feature"
    )
    first = lower(torch.randn(5, 3)).tanh()
    second = upper(first).tanh()
    losses = [(head(torch.cat([first, second], 1)) - i).square().mean() for i, head in enumerate(heads)]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, [first, second], retain_graph=True)])
        for loss in losses
    ]
    through = [torch.autograd.grad(loss, second, retain_graph=True)[0] for loss in losses]
    via = [torch.autograd.grad(second, first, g, retain_graph=True)[0].flatten() for g in through]
    direct = torch.stack([torch.cat([row[:20] - v, row[20:]]) for row, v in zip(rows, via)])
    optimizer.backward(losses, features=[first, second, second])
    torch.testing.assert_close(optimizer.diagnostics.gramian.float(), direct @ direct.T)


def test_hooks_on_a_layers_output_reach_its_weight() -> None:
    def passed(engine: str) -> dict[str, Tensor | None]:
        model = Model()
        model.trunk.second.register_forward_hook(lambda module, given, out: out.register_hook(lambda g: g / 2) and None)
        return step(model, inputs_of("random"), engine=engine)

    model = Model()
    model.trunk.second.register_forward_hook(lambda module, given, out: out.register_hook(lambda g: g / 2) and None)
    losses = model.losses(inputs_of("random"))
    rows = [torch.autograd.grad(loss, model.trunk.second.weight, retain_graph=True)[0] for loss in losses.values()]
    for engine in ("rows", "ghost", "auto"):
        got = passed(engine)["trunk.second.weight"]
        combination = torch.linalg.lstsq(torch.stack([row.flatten() for row in rows]).T, got.flatten()[:, None])
        weights = combination.solution.flatten()
        torch.testing.assert_close(sum(w * row for w, row in zip(weights, rows)), got)
        assert (weights > 0.999).all(), "a projection adds of the others, so no weight is below 1"


@pytest.mark.parametrize("engine", ["rows", "ghost", "auto"])
def test_an_input_modified_in_place_is_an_error_as_in_plain_torch(engine: str) -> None:
    trunk, second, heads = nn.Linear(6, 64), nn.Linear(64, 64), nn.ModuleList(nn.Linear(64, 1) for _ in range(2))
    parameters = [*trunk.parameters(), *second.parameters(), *heads.parameters()]
    optimizer = PCGrad(torch.optim.SGD(parameters, lr=0.1), engine=engine)
    for spoil in (False, True):
        hidden = trunk(torch.randn(4, 6))
        features = second(hidden)
        if spoil:
            hidden.mul_(2)
        losses = [(head(features) - i).square().mean() for i, head in enumerate(heads)]
        if not spoil:
            optimizer.backward(losses)
            continue
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            optimizer.backward(losses)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ["rows", "ghost", "auto", "feature"])
def test_half_precision_parameters(engine: str, dtype: torch.dtype) -> None:
    exact = step(Model(), inputs_of("random"), engine=engine)
    got = step(Model(dtype=dtype), inputs_of("random", dtype), engine=engine)
    assert all(g is None or g.dtype == dtype for g in got.values())
    close({n: None if g is None else g.double() for n, g in got.items()}, exact, 0.1)


def test_a_large_input_row_does_not_drown_the_others() -> None:
    model, inputs = Model(), inputs_of("random")
    inputs[0] *= 1e5
    model.trunk.first.weight.data *= 1e-3
    close(step(model, inputs, engine="ghost"), step(model, inputs, engine="rows"), 1e-10)


@pytest.mark.parametrize("options", [{"engine": "feature"}, {"update_every": 2}, {}])
def test_one_task_alone_comes_first(options: dict[str, Any]) -> None:
    model, inputs = Model(), inputs_of("random")
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), TASKS, **options)
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.backward({"a": model.losses(inputs)["a"]})
    plain = Model()
    plain.losses(inputs)["a"].backward()
    close(gradients(model), gradients(plain), 1e-12)
    optimizer.zero_grad()
    optimizer.backward(model.losses(inputs))
    assert optimizer.diagnostics.tasks == TASKS


def test_a_hook_on_a_module_with_several_outputs_hides_nothing() -> None:
    for options in ({}, {"update_every": 2}, {"engine": "feature"}):
        results = []
        for hooked in (False, True):
            torch.manual_seed(0)
            model = TwoHeads().double().eval()
            called = nn.Module()
            called.forward = lambda x, model=model: tuple(model(x).values())
            if hooked:
                called.register_full_backward_hook(lambda *_: None)
            optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), **options)
            for _ in range(2):
                optimizer.zero_grad()
                inputs = torch.ones(3, 6, dtype=torch.float64).cumsum(1).requires_grad_()
                optimizer.backward([(out - (-1) ** i).square().mean() for i, out in enumerate(called(inputs))])
            results.append(gradients(model))
        close(results[1], results[0], 1e-12)


def test_the_graph_promises_more_than_the_passes_show() -> None:
    """Behind one node over all outputs every head looks shared, until the first gradients come."""

    class Several(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, *outputs: Tensor) -> tuple[Tensor, ...]:
            context.set_materialize_grads(False)
            return tuple(out.clone() for out in outputs)

        @staticmethod
        def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
            return gradients

    for engine in ("rows", "ghost", "auto"):
        results = []
        for together in (False, True):
            torch.manual_seed(0)
            model = TwoHeads().double().eval()
            optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine=engine)
            outputs = tuple(model(torch.ones(3, 6, dtype=torch.float64).cumsum(1)).values())
            if together:
                outputs = Several.apply(*outputs)
            optimizer.backward([(out - (-1) ** i).square().mean() for i, out in enumerate(outputs)])
            results.append(gradients(model))
        close(results[1], results[0], 1e-12)


def test_features_belong_to_the_feature_engine() -> None:
    model = TwoHeads()
    features = model.trunk(torch.randn(4, 6))
    losses = [head(features).square().mean() for head in model.heads.values()]
    with pytest.raises(ValueError, match="features=… is for engine='feature'"):
        PCGrad(torch.optim.SGD(model.parameters(), lr=0.1)).backward(losses, features=features)
    with pytest.raises(ValueError, match="with their graph"):
        optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), engine="feature")
        optimizer.backward(losses, features=features.detach())


def test_default_engine_is_auto() -> None:
    assert isinstance(PCGrad(torch.optim.SGD(Model().parameters(), lr=0.1))._engine, RowsEngine)
