"""RLW: random weights of the losses (Lin et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..registry import Paper, StrategyInfo
from ..strategy import LossStrategy, Step


def random_weights(tasks: int, step: Step) -> Tensor:
    """softmax(z), z ~ N(0, 1): (T,) float64 on the CPU, from the generator of the step."""
    return torch.randn(tasks, dtype=torch.float64, generator=step.generator()).softmax(0)


@dataclass(eq=False)
class RLW(LossStrategy):
    """Σ_t w_t·L_t with fresh w = softmax(z), z ~ N(0, 1), at every step.

    Lin et al. 2022, Algorithm 2: a litmus test, as many weightings do no better. Drawn among the tasks that take part.
    """

    name: ClassVar[str] = "rlw"
    needs_all_losses: ClassVar[bool] = True

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return random_weights(len(losses), step).to(losses, non_blocking=True)


PAPER = Paper(
    authors="Lin, Ye, Zhang, Tsang",
    year=2022,
    title="Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
    venue="TMLR 2022",
    arxiv="2111.10603",
)

INFO = StrategyInfo(strategy=RLW, paper=PAPER, scale_equivariant=True)
