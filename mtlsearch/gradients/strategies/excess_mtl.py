"""ExcessMTL: more weight to tasks that are far from what they could reach (He et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..gramian import weighted_rows
from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo
from ..strategy import RowStrategy, Step, grown, grown_rows


@dataclass(eq=False)
class ExcessMTL(RowStrategy):
    """Loss weights w_t ∝ w_t·exp(η·E_t/E_t(0)), with E_t = g_tᵀ·diag(h_t)^(−1)·g_t.

    He et al. 2024, "Robust Multi-Task Learning with Excess Risks", equations 6, 7 and 9: E_t estimates the excess risk,
    h_t is the root of the sum of g_t² so far, and E_t(0) the mean of E_t in the first `warmup` steps, in which weights
    are 1/T (the paper takes three epochs). No epsilon: a coordinate that has never had a gradient counts 0. The weights
    sum to 1 and reach task-specific parameters. Keeps T·P numbers, and starts anew when the set of shared parameters
    changes.
    """

    name: ClassVar[str] = "excess_mtl"
    # `sums`: of E_t in the warm-up, and of how many steps. `logits`: log w_t up to a constant.
    squares: Tensor | None = field(default=None, init=False, repr=False)
    sums: Tensor | None = field(default=None, init=False, repr=False)
    logits: Tensor | None = field(default=None, init=False, repr=False)
    eta: float = hyperparameter(1.0, gt=0, search={"loguniform": (1e-3, 1.0)}, description="step size of the weights")
    warmup: int = hyperparameter(1, ge=1, description="steps that the base line is averaged over")

    def aggregate(self, jacobian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        squares = grown_rows(self.squares, step, jacobian)
        again = self.squares is None or self.squares.shape[1] != squares.shape[1]
        like = jacobian.new_empty(0, dtype=torch.float64)
        sums = grown(None if again else self.sums, (2, len(squares)), like)
        logits = grown(None if again else self.logits, (len(squares),), like)
        square = jacobian.square()
        squares[tasks] += square
        so_far = squares[tasks]
        excess = torch.where(so_far > 0, square / so_far.sqrt(), 0.0).sum(1, dtype=torch.float64)
        warm = sums[1, tasks] < self.warmup
        base = sums[0, tasks] / sums[1, tasks]
        # A task whose base line was 0 has met nothing to learn: it does not move.
        moves = torch.where(warm | (base <= 0), 1.0, excess / base)
        sums[0, tasks] += torch.where(warm, excess, 0.0)
        sums[1, tasks] += warm.to(sums)
        # Centred, so that a task that is absent keeps its place among the others.
        logits[tasks] += self.eta * (moves - moves.mean())
        self.squares, self.sums, self.logits = squares, sums, logits
        return weighted_rows(jacobian, range(len(tasks)), self.specific_weights(step))

    def specific_weights(self, step: Step) -> Tensor:
        assert self.logits is not None
        return self.logits[list(step.tasks)].softmax(0)


INFO = StrategyInfo(
    strategy=ExcessMTL,
    paper=Paper(
        authors="He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao",
        year=2024,
        title="Robust Multi-Task Learning with Excess Risks",
        venue="ICML 2024",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
