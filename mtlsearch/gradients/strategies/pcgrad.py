"""PCGrad: project conflicting gradients (Yu et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..registry import Paper, StrategyInfo
from ..solvers import Array
from ..strategy import GramianStrategy, Step


def project_in_turn(gramian: Array, orders: np.ndarray) -> Array:
    """Algorithm 1 of the paper on the Gramian: gramian (T, T), orders (T, T) integers -> weights (T,).

    Row i of `orders` is a permutation of the tasks: the order in which gradient i meets the others (its own entry is
    passed over). With W = I and d_i = Σ_j W_ij·g_j, gradient i meets g_j when ⟨d_i, g_j⟩ < 0 and then loses its
    projection on the *original* g_j: W_ij −= ⟨d_i, g_j⟩ / ⟨g_j, g_j⟩. The weights are the column sums of W, so the
    result is the sum of the projected gradients, not their mean. No epsilon; a zero gradient projects nothing.
    """
    projected = np.eye(len(gramian))
    for i, order in enumerate(orders):
        for j in order:
            if j != i and gramian[j, j] > 0 and (inner := projected[i] @ gramian[j]) < 0:
                projected[i, j] -= inner / gramian[j, j]
    return projected.sum(0)


def project_conflicts(gramian: Tensor, orders: Tensor) -> Tensor:
    """`project_in_turn` for a GPU: T rounds without branches, nothing to wait for."""
    tasks = len(gramian)
    met = orders.T  # (round, task): whom each task meets in each round
    squares = gramian.diagonal()[met]
    meets = (met != torch.arange(tasks, device=met.device)) & (squares > 0)
    squares = torch.where(meets, squares, 1.0)
    products, places = gramian[met], torch.nn.functional.one_hot(met, tasks)
    projected = torch.eye(tasks, dtype=gramian.dtype, device=gramian.device)
    for product, square, valid, place in zip(products, squares, meets, places):
        conflict = (projected * product).sum(1).clamp(max=0)
        projected = projected - place * (torch.where(valid, conflict, 0.0) / square).unsqueeze(1)
    return projected.sum(0)


@dataclass(eq=False)
class PCGradStrategy(GramianStrategy):
    """Each task's gradient loses its components against the others', which it meets in a fresh random order.

    Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", Algorithm 1. The orders come from a generator keyed by
    (seed, step). With two tasks there is no order, and the result is deterministic.

    >>> PCGradStrategy().combine(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    tensor([0.5848, 3.8012, 3.8012])
    """

    name: ClassVar[str] = "pcgrad"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        orders = random_orders(len(gramian), step)
        if gramian.device.type == "cpu":
            with np.errstate(invalid="ignore"):  # a Gramian that is not finite is the engine's to handle
                return torch.from_numpy(project_in_turn(gramian.numpy(), orders.numpy()))
        return project_conflicts(gramian, orders.to(gramian.device, non_blocking=True))


def random_orders(tasks: int, step: Step) -> Tensor:
    """(T, T): a permutation of the tasks for each task, drawn on the CPU, so alike on every device and rank."""
    return torch.rand(tasks, tasks, dtype=torch.float64, generator=step.generator()).argsort(dim=1)


INFO = StrategyInfo(
    strategy=PCGradStrategy,
    paper=Paper(
        authors="Yu, Kumar, Gupta, Levine, Hausman, Finn",
        year=2020,
        title="Gradient Surgery for Multi-Task Learning",
        venue="NeurIPS 2020",
        arxiv="2001.06782",
    ),
    scale_equivariant=True,
)
