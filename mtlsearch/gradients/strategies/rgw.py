"""RGW: random weights of the gradients (Lin et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..registry import StrategyInfo
from ..strategy import GramianStrategy, Step
from .rlw import PAPER, random_weights


@dataclass(eq=False)
class RGW(GramianStrategy):
    """Σ_t w_t·g_t over the shared parameters with fresh w = softmax(z), z ~ N(0, 1), at every step.

    Lin et al. 2022: RLW on gradients, so task-specific parameters get their plain gradients. On the shared ones it is
    RLW at the price of T backwards; its use is as a baseline for methods that weigh gradients.
    """

    name: ClassVar[str] = "rgw"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        return random_weights(len(gramian), step).to(gramian.device, non_blocking=True)


INFO = StrategyInfo(strategy=RGW, paper=PAPER, scale_equivariant=True)
