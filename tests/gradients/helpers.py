"""The oracle, the Jacobians and the models that the gradient tests share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlsearch.gradients import LossStrategy, Step, Strategy, get_strategy

JACOBIANS = ("random", "conflicting", "near_opposed", "zero_row", "duplicate_rows", "small")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def jacobian(kind: str, tasks: int, dtype: torch.dtype, seed: int = 0, width: int = 3000) -> Tensor:
    """A (tasks, width) Jacobian of one of the kinds in JACOBIANS."""
    generator = torch.Generator().manual_seed(1000 * tasks + seed)
    rows = torch.randn(tasks, width, dtype=torch.float64, generator=generator)
    if kind == "conflicting":
        # Each row has a part against the mean of the others.
        rows -= 0.8 * (rows.sum(0) - rows)
    elif kind == "near_opposed":
        signs = torch.tensor([(-1.0) ** i for i in range(tasks)], dtype=torch.float64)
        rows = signs[:, None] * (rows[0] + 1e-3 * rows)
    elif kind == "zero_row":
        rows[-1] = 0
    elif kind == "duplicate_rows":
        rows[0] = -rows[-1] + 0.1 * rows[0]
        rows[1] = rows[0] if tasks > 2 else rows[1]
    elif kind == "small":
        rows = 1e-5 * (rows - 0.8 * (rows.sum(0) - rows))
    return rows.to(dtype)


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


def relative_error(got: Tensor, expected: Tensor, rows: Tensor, weights: Tensor | None = None) -> float:
    """‖got − expected‖ / Σ |w_t|·‖g_t‖, with weights of 1 where they are not given."""
    lengths = rows.double().norm(dim=1)
    scale = (lengths if weights is None else weights.abs() * lengths).sum()
    return float((got.double() - expected.double()).norm() / scale)


class TwoHeads(nn.Module):
    """A trunk with BatchNorm, a head for each task, and a parameter that nobody uses."""

    def __init__(self, tasks: Sequence[str] = ("a", "b")) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 8))
        self.heads = nn.ModuleDict({task: nn.Linear(8, 2) for task in tasks})
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.trunk(inputs).tanh()
        return {task: head(features) for task, head in self.heads.items()}

    def losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """Losses that pull the trunk in opposite directions."""
        outputs = self(inputs)
        return {task: (out - (-1) ** i).square().mean() for i, (task, out) in enumerate(outputs.items())}


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    """Copies of all `.grad`, by name."""
    return {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}


def same(left: dict[str, Tensor | None], right: dict[str, Tensor | None]) -> bool:
    """Bitwise equality of two sets of gradients, None included."""
    return left.keys() == right.keys() and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in ((left[name], right[name]) for name in left)
    )
