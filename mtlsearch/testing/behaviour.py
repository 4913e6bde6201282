"""Checks on every strategy alone: random numbers, state, copies, the order of the tasks."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mtlsearch.gradients import Strategy

from .jacobians import TOLERANCE, identical, jacobian, relative_error
from .subject import Check, Subject, global_random_state

TASKS = 3


def checks_of(subject: Subject) -> Sequence[Check]:
    found: list[Check] = [
        same_seed_and_step_give_the_same,
        leaves_the_global_generators_alone,
        declares_its_state,
        state_dict_goes_on_bit_for_bit,
        refuses_the_state_of_another,
        pickle_and_deepcopy_go_on_alike,
    ]
    if subject.permutation_equivariant:
        found.append(permutation_equivariance)
    return found


def same_seed_and_step_give_the_same(subject: Subject) -> None:
    first = _answers(subject, subject.new(TASKS), range(3))
    torch.manual_seed(1234)
    second = _answers(subject, subject.new(TASKS), range(3))
    for index, (got, again) in enumerate(zip(first, second)):
        if not identical(got, again):
            raise AssertionError(
                f"two new strategies must give the same in step {index} of the same seed, whatever the state of the "
                f"global generator, but on the conflicting Jacobian they differ by {_difference(got, again):.3g}; draw "
                "from step.generator()"
            )


def leaves_the_global_generators_alone(subject: Subject) -> None:
    before = global_random_state()
    _answers(subject, subject.new(TASKS), range(1))
    for whose, was, now in zip(("torch", "numpy", "Python"), before, global_random_state()):
        if repr(was) != repr(now) or (isinstance(was, Tensor) and not torch.equal(was, now)):
            raise AssertionError(
                f"{whose}'s global random generator must be left alone, but a step on the conflicting Jacobian changed "
                "its state; draw from step.generator()"
            )


def declares_its_state(subject: Subject) -> None:
    strategy, fresh = subject.new(TASKS), subject.new(TASKS)
    if strategy.stateful:
        return
    _answers(subject, strategy, range(3))
    (got,), (expected,) = _answers(subject, strategy, range(3, 4)), _answers(subject, fresh, range(3, 4))
    if not identical(got, expected):
        raise AssertionError(
            "a strategy that is not stateful must give in step 3 what a new one gives, but after three steps on "
            f"conflicting Jacobians it differs by {_difference(got, expected):.3g}; keep state in fields declared with "
            "field(default=None, init=False, repr=False)"
        )


def state_dict_goes_on_bit_for_bit(subject: Subject) -> None:
    strategy, resumed = subject.new(TASKS), subject.new(TASKS)
    _answers(subject, strategy, range(3))
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    _expect_same_steps(subject, strategy, resumed, "restored from its state_dict")


def refuses_the_state_of_another(subject: Subject) -> None:
    try:
        subject.new(TASKS).load_state_dict({"no_such_state": torch.zeros(3)})
    except (ValueError, TypeError):
        return
    raise AssertionError('load_state_dict({"no_such_state": …}) must raise ValueError or TypeError, but was accepted')


def pickle_and_deepcopy_go_on_alike(subject: Subject) -> None:
    ways: dict[str, Callable[[Strategy], Strategy]] = {
        "pickled": lambda strategy: pickle.loads(pickle.dumps(strategy)),
        "deep-copied": copy.deepcopy,
    }
    for how, way in ways.items():
        strategy = subject.new(TASKS)
        _answers(subject, strategy, range(3))
        twin = way(strategy)
        kept = copy.deepcopy(strategy.state_dict())
        _answers(subject, twin, range(3, 5))
        if not identical(kept, strategy.state_dict()):
            raise AssertionError(f"a strategy must not share its state with one that was {how} from it, but does")
        _expect_same_steps(subject, strategy, way(strategy), how)


def permutation_equivariance(subject: Subject) -> None:
    order = [2, 0, 3, 1]
    for dtype, tolerance in TOLERANCE.items():
        rows, losses = jacobian("conflicting", 4, dtype), torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=dtype)
        got = subject.answer(subject.new(4), rows[order], losses[order])
        expected = subject.answer(subject.new(4), rows, losses)
        if subject.kind == "loss":
            expected, scale = expected[order], float(expected.norm())
            error = _difference(got, expected) / scale
        else:
            error = relative_error(got, expected, rows)
        if not error <= tolerance:
            raise AssertionError(
                f"the order of the tasks must not matter, but the conflicting Jacobian (4, 3000) {dtype} in the order "
                f"{order} gives a result that differs by {error:.3g} of the rows (allowed: {tolerance:g})"
            )


def _answers(subject: Subject, strategy: Strategy, steps: range) -> list[Tensor]:
    """What the strategy says in these steps, each with a Jacobian and losses of its own."""
    found = []
    for index in steps:
        losses = 0.5 + torch.rand(TASKS, generator=torch.Generator().manual_seed(index))
        found.append(subject.answer(strategy, jacobian("conflicting", TASKS, torch.float32, index), losses, index))
    return found


def _expect_same_steps(subject: Subject, strategy: Strategy, other: Strategy, how: str) -> None:
    steps = range(3, 6)
    for index, got, expected in zip(steps, _answers(subject, other, steps), _answers(subject, strategy, steps)):
        if not identical(got, expected):
            raise AssertionError(
                f"a strategy {how} after three steps must go on bit for bit, but in step {index} its result on the "
                f"conflicting Jacobian differs by {_difference(got, expected):.3g} of {float(expected.norm()):.3g}"
            )


def _difference(left: Tensor, right: Tensor) -> float:
    return float((left.double() - right.double()).norm())
