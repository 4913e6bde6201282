"""Loss strategies by hand: formulas, tasks that were absent, losses that cannot be used."""

from __future__ import annotations

import math

import pytest
import torch

from mtlsearch.gradients import Step

from .helpers import loss_weights, ready


def test_pbi_on_its_direction() -> None:
    got = loss_weights(ready("pbi", 4), torch.full((4,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(got, torch.full((4,), 0.5, dtype=torch.float64))  # r/‖r‖


def test_dwa_of_a_task_that_was_absent() -> None:
    strategy = ready("dwa", 3, period=1)
    names = ("0", "1", "2")
    for index, (tasks, values) in enumerate(
        [((0, 1, 2), [1.0, 1.0, 1.0]), ((0, 2), [0.5, 1.0]), ((0, 1, 2), [1.0] * 3)]
    ):
        losses = torch.tensor(values, dtype=torch.float64)
        step = Step(index=index, names=names, tasks=tasks)
        weights = strategy.weigh(losses, step)  # type: ignore[attr-defined]
    rates = torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weights, 3 * (rates / 2).softmax(0))


def test_famo_with_bounds_and_an_absent_task() -> None:
    strategy = ready("famo", 3, bounds=[0.5, 0.0, -1.0])
    names = ("0", "1", "2")
    losses = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    step = Step(names=names, tasks=(0, 1, 2))
    weights = strategy.weigh(losses, step)  # type: ignore[attr-defined]
    above = torch.tensor([0.5, 2.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(weights, 1 / above / (1 / above).sum())
    strategy.weigh(losses[[0, 2]], Step(index=1, names=names, tasks=(0, 2)))  # type: ignore[attr-defined]
    # Nothing fell, and task 1 was not there: no logit has a reason to move.
    assert not strategy.logits.any()  # type: ignore[attr-defined]
    after = strategy.weigh(losses, Step(index=2, names=names, tasks=(0, 1, 2)))  # type: ignore[attr-defined]
    assert bool(after.isfinite().all())


@pytest.mark.parametrize("name", ["gls", "famo"])
def test_losses_must_be_positive_for_a_logarithm(name: str) -> None:
    with pytest.raises(ValueError, match=r"takes logarithms.*0 where none is given.*-1\.0"):
        loss_weights(ready(name, 2), torch.tensor([1.0, -1.0]))


def test_scalarizations_by_hand() -> None:
    losses = torch.tensor([4.0, 1.0], dtype=torch.float64)
    # √(4·1) = 2: derivatives 2/(2·4) and 2/(2·1).
    assert loss_weights(ready("gls", 2), losses).tolist() == pytest.approx([0.25, 1.0])
    e = math.exp(2.0 / 0.5) / (math.exp(2.0 / 0.5) + math.exp(0.5 / 0.5))
    assert loss_weights(ready("stch", 2, mu=0.5), losses).tolist() == pytest.approx([0.5 * e, 0.5 * (1 - e)])
