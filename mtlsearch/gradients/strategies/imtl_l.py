"""IMTL-L: learned scales that bring all losses to the same size (Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..learned import LearnedScalars
from ..registry import StrategyInfo
from ..strategy import LossStrategy, Step
from .imtl_g import PAPER


@dataclass(eq=False)
class IMTLL(LearnedScalars, LossStrategy):
    """Σ_t exp(s_t)·L_t − s_t with a learned s_t for each task, 0 at first.

    Liu et al. 2021, the loss balance of "Towards Impartial Multi-task Learning" (base e). At the optimum exp(s_t)·L_t =
    1 for every task. The s_t join the wrapped optimizer as a parameter group of their own, without weight decay; an
    absent task's s_t does not move.
    """

    name: ClassVar[str] = "imtl_l"

    def weigh(self, losses: Tensor, step: Step) -> Tensor:
        return self.scalars(step.tasks).exp()

    def penalty(self, tasks: Sequence[int]) -> Tensor | None:
        return -self.scalars(tasks).sum() if tasks else None


INFO = StrategyInfo(strategy=IMTLL, paper=PAPER)
