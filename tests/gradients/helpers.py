"""The oracle that the gradient tests share, and the Jacobians and the model of mtlsearch.testing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlsearch.gradients import LossStrategy, Step, Strategy, get_strategy
from mtlsearch.testing.jacobians import JACOBIANS, TOLERANCE, jacobian, relative_error
from mtlsearch.testing.model import TwoHeads, gradients

__all__ = [
    "JACOBIANS",
    "TOLERANCE",
    "TwoHeads",
    "combined",
    "gradients",
    "jacobian",
    "loss_weights",
    "pcgrad_oracle",
    "ready",
    "relative_error",
    "same",
]


def pcgrad_oracle(rows: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """PCGrad on whole vectors in float64, in the given orders: (T, P) -> (P,)."""
    original = rows.double()
    total = torch.zeros_like(original[0])
    for i, order in enumerate(orders):
        vector = original[i].clone()
        for j in order:
            if j != i and (inner := float(vector @ original[j])) < 0:
                vector -= inner / float(original[j] @ original[j]) * original[j]
        total += vector
    return total


def combined(strategy: str | Strategy, rows: Tensor, losses: Tensor | None = None, index: int = 0) -> Tensor:
    """`combine` of a strategy that may want task names, losses (by default ones) or several samples."""
    if isinstance(strategy, str):
        strategy = ready(strategy, len(rows))
    samples = getattr(strategy, "samples", 1)
    losses = torch.ones(len(rows), dtype=rows.dtype) if losses is None else losses
    return strategy.combine(rows if samples == 1 else torch.stack([rows] * samples), Step(index=index, losses=losses))


def ready(name: str, tasks: int, **hyperparameters: object) -> Strategy:
    """A new strategy that knows its tasks, "0", "1", …"""
    strategy = get_strategy(name, **hyperparameters)
    strategy.setup([str(task) for task in range(tasks)], torch.zeros(()))
    return strategy


def loss_weights(strategy: Strategy, losses: Tensor, index: int = 0) -> Tensor:
    """The weights of a loss strategy in step `index`, in which all tasks take part."""
    assert isinstance(strategy, LossStrategy)
    tasks = tuple(range(len(losses)))
    step = Step(index=index, names=tuple(map(str, tasks)), tasks=tasks, losses=losses)
    return strategy.weigh(losses, step).detach()


def same(left: dict[str, Tensor | None], right: dict[str, Tensor | None]) -> bool:
    """Bitwise equality of two sets of gradients, None included."""
    return left.keys() == right.keys() and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in ((left[name], right[name]) for name in left)
    )
