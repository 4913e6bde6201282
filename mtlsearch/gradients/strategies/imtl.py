"""IMTL: IMTL-G on the shared parameters and IMTL-L on the losses, together (Liu et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..learned import LearnedScalars
from ..registry import StrategyInfo
from ..strategy import GramianStrategy, Step
from .imtl_g import PAPER, equal_projections


@dataclass(eq=False)
class IMTL(LearnedScalars, GramianStrategy):
    """Losses exp(s_t)·L_t − s_t with learned s_t; their gradients are combined by IMTL-G.

    Liu et al. 2021, the hybrid of "Towards Impartial Multi-task Learning". Task-specific parameters get the gradient of
    exp(s_t)·L_t, and s_t that of the whole expression, exp(s_t)·L_t − 1.
    """

    name: ClassVar[str] = "imtl"

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        scales = self.specific_weights(step).to("cpu", torch.float64)
        on_host = gramian.cpu()
        if not bool(on_host.isfinite().all()):
            return torch.full_like(gramian.diagonal(), torch.nan)
        scaled = on_host * torch.outer(scales, scales)
        weights = torch.from_numpy(equal_projections(scaled.numpy(), step.precision))
        return (weights * scales).to(gramian.device)

    def specific_weights(self, step: Step) -> Tensor:
        return self.scalars(step.tasks).detach().exp()

    def own_gradients(self, step: Step) -> list[Tensor | None]:
        losses = step.known_losses(self.name)
        values = self.specific_weights(step) * losses.to(self.scalars(step.tasks)) - 1
        gradients: list[Tensor | None] = [None] * len(self.parameters())
        for task, value in zip(step.tasks, values):
            gradients[task] = value
        return gradients


INFO = StrategyInfo(strategy=IMTL, paper=PAPER, permutation_equivariant=True)
