"""Checks of a strategy at work in `MultiTaskOptimizer`."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlsearch.gradients import LossStrategy, MultiTaskOptimizer, Strategy

from .jacobians import identical
from .model import TwoHeads, gradients
from .subject import Check, Subject

TASKS = ("a", "b", "c")
# GradScaler's own start.
SCALE = 65536.0

Trained = tuple[TwoHeads, MultiTaskOptimizer]


def checks_of(subject: Subject) -> Sequence[Check]:
    found: list[Check] = [
        unused_parameters_keep_none,
        absent_task_takes_no_part,
        separate_calls_equal_the_joint_one,
        gradients_add_to_existing_ones,
        scaler_changes_nothing,
        overflow_leaves_state_alone,
        optimizer_resumes_bit_for_bit,
        optimizer_copies_go_on_alike,
        training_leaves_the_global_generator_alone,
    ]
    if subject.samples == 1:
        found.append(micro_batches_equal_the_batch)  # else each call is an independent sample
    strategy = subject.new(1)
    if strategy.parameters():
        found.append(own_parameters_have_gradients)
    if not (isinstance(strategy, LossStrategy) and strategy.parameters()):
        found.append(one_task_is_the_plain_optimizer)  # else it learns a weight for the one task too
    if subject.kind != "loss" and type(strategy).specific_weights is Strategy.specific_weights:
        found.append(specific_gradients_are_plain)
    return found


def one_task_is_the_plain_optimizer(subject: Subject) -> None:
    model, optimizer = _build(subject, ("a",))
    _train(subject, model, optimizer, range(3))
    reference = _model(("a",))
    plain = _sgd(reference)
    for index in range(3):
        plain.zero_grad()
        reference.losses(_batch(index))["a"].backward()
        plain.step()
    # The mean of several equal samples is rounded; one sample is the gradient itself.
    _expect_close(
        "three steps with one task must leave the parameters of the wrapped optimizer alone with it",
        dict(model.named_parameters()),
        dict(reference.named_parameters()),
        rtol=0 if subject.samples == 1 else 1e-5,
    )


def specific_gradients_are_plain(subject: Subject) -> None:
    model, optimizer = _build(subject)
    reference = _model()
    found = reference.losses(_batch())
    torch.stack(list(found.values())).sum().backward()
    _give(subject, optimizer, lambda: model.losses(_batch()))
    heads, plain = ({n: g for n, g in gradients(m).items() if n.startswith("heads.")} for m in (model, reference))
    _expect_close(
        "a strategy that does not weigh losses (specific_weights gives None) must leave gradients of task-specific "
        "parameters as plain backward has them",
        heads,
        plain,
        rtol=0 if subject.samples == 1 else 1e-6,
    )


def unused_parameters_keep_none(subject: Subject) -> None:
    model, optimizer = _build(subject)
    _train(subject, model, optimizer, range(3))
    if model.unused.grad is not None:
        raise AssertionError(f"a parameter that no loss reaches must keep .grad None, but has {model.unused.grad}")


def own_parameters_have_gradients(subject: Subject) -> None:
    model, optimizer = _build(subject)
    _give(subject, optimizer, lambda: model.losses(_batch()))
    for index, parameter in enumerate(optimizer.strategy.parameters()):
        if parameter.grad is None:
            raise AssertionError(
                f"the strategy's own parameters must get gradients, but parameter {index} has None; give them with "
                "own_gradients(step), or, in a loss strategy, let the weights depend on them"
            )


def absent_task_takes_no_part(subject: Subject) -> None:
    model, optimizer = _build(subject)
    _train(subject, model, optimizer, range(2))
    optimizer.zero_grad()
    _give(subject, optimizer, lambda: {**model.losses(_batch(3)), "b": None})
    got = gradients(model)
    if got["heads.b.weight"] is not None:
        raise AssertionError("the head of a task whose loss is None must keep .grad None, but has a gradient")
    if optimizer.diagnostics.tasks != ("a", "c"):
        raise AssertionError(f"tasks a and c must be combined when b is absent, not {optimizer.diagnostics.tasks}")
    if got["heads.a.weight"] is None or got["trunk.0.weight"] is None:
        raise AssertionError("the tasks that are there must give gradients when one is absent, but gave None")
    optimizer.step()
    _train(subject, model, optimizer, range(4, 6))
    for name, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise AssertionError(f"parameters must stay finite when an absent task comes back, but {name} is not")


def separate_calls_equal_the_joint_one(subject: Subject) -> None:
    model, joint = _build(subject)
    twin, separate = _build(subject)
    model.eval()
    twin.eval()
    _give(subject, joint, lambda: model.losses(_batch()))
    for task in TASKS:
        for _ in range(subject.samples):
            separate.backward({task: twin.losses(_batch())[task]}, combine=False)
    separate.combine()
    _expect_close(
        "backward of each task alone (combine=False), then combine(), must equal one call with all losses",
        gradients(twin),
        gradients(model),
        rtol=2e-5,
        atol=1e-7,
    )


def micro_batches_equal_the_batch(subject: Subject) -> None:
    model, optimizer = _build(subject)
    model.double().eval()
    whole = _batch().double()
    before = copy.deepcopy(optimizer.state_dict())
    optimizer.backward(model.losses(whole))
    joint, own = gradients(model), _own_gradients(optimizer)
    optimizer.zero_grad()
    optimizer.load_state_dict(before)  # the same draws and the same state again
    for part in whole.chunk(3):
        optimizer.backward({task: loss / 3 for task, loss in model.losses(part).items()}, combine=False)
    optimizer.combine()
    promise = "three micro-batches with combine=False, then combine(), must equal the whole batch"
    _expect_close(promise, gradients(model), joint, rtol=1e-7, atol=1e-10)
    _expect_close(promise, _own_gradients(optimizer), own, rtol=1e-5, atol=1e-7)


def gradients_add_to_existing_ones(subject: Subject) -> None:
    model, optimizer = _build(subject)
    model.eval()
    before = copy.deepcopy(optimizer.state_dict())
    _give(subject, optimizer, lambda: model.losses(_batch()))
    once = gradients(model)
    optimizer.load_state_dict(before)
    _give(subject, optimizer, lambda: model.losses(_batch()))
    twice = {name: None if value is None else 2 * value for name, value in once.items()}
    promise = "a second combination without zero_grad() must add to .grad"
    _expect_close(promise, gradients(model), twice, rtol=1e-5, atol=1e-6)


def scaler_changes_nothing(subject: Subject) -> None:
    model, optimizer = _build(subject)
    twin, scaled = _build(subject)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    _train(subject, model, optimizer, range(3))
    for index in range(3):
        scaled.zero_grad()
        _give(subject, scaled, _losses_of(twin, index), scaler)
        scaler.step(scaled)
        scaler.update()
    promise = f"three steps with a GradScaler at {SCALE:g} must equal three without"
    _expect_close(promise, dict(twin.named_parameters()), dict(model.named_parameters()), rtol=1e-6, atol=1e-7)
    if subject.kind != "loss":
        seen, plain = ({"the Gramian": o.diagnostics.gramian} for o in (scaled, optimizer))
        _expect_close(promise, seen, plain, rtol=1e-5, atol=1e-6)
    own, expected = (dict(enumerate(o.strategy.parameters())) for o in (scaled, optimizer))
    _expect_close(promise, own, expected, rtol=1e-5, atol=1e-6)


def overflow_leaves_state_alone(subject: Subject) -> None:
    # A loss strategy may remember a large finite loss, and divide by it.
    factors = {"an infinite loss": torch.inf} | ({} if subject.kind == "loss" else {"gradients that overflow": 1e38})
    for what, factor in factors.items():
        model, optimizer = _build(subject)
        scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
        parameters = copy.deepcopy(dict(model.named_parameters()))
        state = copy.deepcopy(optimizer.strategy.state_dict())

        def losses(model: TwoHeads = model, factor: float = factor) -> dict[str, Tensor]:
            found = model.losses(_batch())
            return {**found, "a": found["a"] * factor}

        _give(subject, optimizer, losses, scaler)
        if not identical(optimizer.strategy.state_dict(), state):
            raise AssertionError(
                f"a step with {what} must leave the strategy's state alone, but {state} became "
                f"{optimizer.strategy.state_dict()}"
            )
        scaler.step(optimizer)
        scaler.update()
        if not scaler.get_scale() < SCALE:
            raise AssertionError(f"a step with {what} must give gradients that are not finite, so that it is skipped")
        _expect_close(f"a step with {what} must be skipped", dict(model.named_parameters()), dict(parameters))


def optimizer_resumes_bit_for_bit(subject: Subject) -> None:
    model, optimizer = _build(subject, seed=3)
    _train(subject, model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin, resumed = _build(subject, seed=99)
    twin.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    _expect_same_training(subject, (model, optimizer), (twin, resumed), "resumed from its state_dict")


def optimizer_copies_go_on_alike(subject: Subject) -> None:
    ways: dict[str, Callable[[Any], Any]] = {
        "pickled": lambda both: pickle.loads(pickle.dumps(both)),
        "deep-copied": copy.deepcopy,
    }
    for how, way in ways.items():
        model, optimizer = _build(subject)
        _train(subject, model, optimizer, range(2))
        _expect_same_training(subject, (model, optimizer), way((model, optimizer)), how)


def training_leaves_the_global_generator_alone(subject: Subject) -> None:
    model, optimizer = _build(subject)
    before = torch.get_rng_state()
    _train(subject, model, optimizer, range(2))
    if not torch.equal(before, torch.get_rng_state()):
        raise AssertionError("torch's global generator must be left alone, but two steps changed its state")


def _model(tasks: tuple[str, ...] = TASKS) -> TwoHeads:
    torch.manual_seed(7)  # the caller's generators are restored after the check
    return TwoHeads(tasks)


def _sgd(model: TwoHeads) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _build(subject: Subject, tasks: tuple[str, ...] = TASKS, seed: int = 0) -> Trained:
    model = _model(tasks)
    return model, MultiTaskOptimizer(_sgd(model), subject.make(), tasks=tasks, seed=seed, process_group=False)


def _batch(index: int = 0) -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(index))


def _losses_of(model: TwoHeads, index: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: model.losses(_batch(index))


def _give(
    subject: Subject,
    optimizer: MultiTaskOptimizer,
    losses: Callable[[], Mapping[str, Tensor | None]],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """One combination: `losses` evaluated and given as often as the strategy wants samples."""
    for left in reversed(range(subject.samples)):
        optimizer.backward(losses(), combine=left == 0, scaler=scaler)


def _train(subject: Subject, model: TwoHeads, optimizer: MultiTaskOptimizer, steps: range) -> None:
    for index in steps:
        optimizer.zero_grad()
        _give(subject, optimizer, _losses_of(model, index))
        optimizer.step()


def _own_gradients(optimizer: MultiTaskOptimizer) -> dict[Any, Tensor | None]:
    """Of the strategy's own parameters."""
    return {task: None if p.grad is None else p.grad.clone() for task, p in enumerate(optimizer.strategy.parameters())}


def _expect_same_training(subject: Subject, ours: Trained, theirs: Trained, how: str) -> None:
    """Both must go on alike, and apart from each other."""
    (model, optimizer), (twin, other) = ours, theirs
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    _train(subject, twin, other, range(3, 6))
    if not identical(kept, (model.state_dict(), optimizer.state_dict())):
        raise AssertionError(f"an optimizer must not change when one that was {how} goes on, but did")
    _train(subject, model, optimizer, range(3, 6))
    promise = f"an optimizer that was {how} must go on bit for bit"
    _expect_close(promise, dict(twin.named_parameters()), dict(model.named_parameters()))
    if not identical(other.state_dict(), optimizer.state_dict()):
        raise AssertionError(f"{promise}, but its state_dict differs after three steps")


def _expect_close(
    promise: str,
    got: Mapping[Any, Tensor | None],
    expected: Mapping[Any, Tensor | None],
    rtol: float = 0,
    atol: float = 0,
) -> None:
    """Each tensor as expected, None for None; bit for bit without tolerances."""
    for name, value in expected.items():
        came = got[name]
        if value is None or came is None:
            if value is not came:
                raise AssertionError(f"{promise}, but {name} is {came} instead of {value}")
        elif not torch.allclose(came, value, rtol=rtol, atol=atol):
            error = float((came.detach().double() - value.detach().double()).norm())
            raise AssertionError(
                f"{promise}, but {name} differs by {error:.3g} from the expected norm of "
                f"{float(value.detach().norm()):.6g} (TwoHeads: three tasks, batches of 12)"
            )
