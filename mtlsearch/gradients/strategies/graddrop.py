"""GradDrop: one sign for each coordinate, drawn by the purity of the gradients' signs (Chen et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import RowStrategy, Step


def drop_signs(jacobian: Tensor, draws: Tensor, leak: float) -> Tensor:
    """Lines 10 to 15 of Algorithm 1: jacobian (T, P), draws (P,) uniform on [0, 1) -> gradient (P,).

    With the positive sign purity P = ½·(1 + Σ_t g_t / Σ_t |g_t|), a coordinate keeps the positive entries where P > U
    and the negative ones where P < U; `leak` of the dropped entries passes all the same.
    """
    size = jacobian.abs().sum(0)
    total = jacobian.sum(0)
    purity = torch.where(size > 0, 0.5 * (1 + total / size), 0.5)
    positive = jacobian.clamp(min=0).sum(0)
    kept = torch.where(purity > draws, positive, torch.where(purity < draws, total - positive, 0.0))
    return leak * total + (1 - leak) * kept


@dataclass(eq=False)
class GradDrop(RowStrategy):
    """Where the tasks disagree on the sign of a coordinate, keep only the entries of a randomly drawn sign.

    Chen et al. 2020, "Just Pick a Sign", Algorithm 1 with f the identity, on the gradients of the shared parameters
    (the paper applies it to those of an activation). The draws come from a generator keyed by (seed, step) on the
    gradients' device.
    """

    name: ClassVar[str] = "graddrop"
    leak: float = hyperparameter(
        0.0, ge=0, le=1, search={"uniform": (0.0, 0.5)}, description="share of dropped entries that passes"
    )

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        generator = step.generator(jacobian.device)
        # float32 for all: the same draws whatever the dtype of the gradients
        draws = torch.rand(jacobian.shape[1], dtype=torch.float32, device=jacobian.device, generator=generator)
        return drop_signs(jacobian, draws, self.leak)


INFO = StrategyInfo(
    strategy=GradDrop,
    paper=Paper(
        authors="Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov",
        year=2020,
        title="Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
        venue="NeurIPS 2020",
        arxiv="2010.06808",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
