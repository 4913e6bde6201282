"""GLS: the geometric mean of the losses (Chennupati et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..registry import Paper, StrategyInfo
from ..strategy import Scalarization, Step, positive


@dataclass(eq=False)
class GLS(Scalarization):
    """(Π_t L_t)^(1/T): the weight of a loss is in proportion to 1/L_t, so its scale does not matter.

    Chennupati et al. 2019, "MultiNet++", the geometric loss strategy. Losses must be positive.
    """

    name: ClassVar[str] = "gls"

    def scalarize(self, losses: Tensor, step: Step) -> Tensor:
        return positive(self.name, losses).log().mean().exp()


INFO = StrategyInfo(
    strategy=GLS,
    paper=Paper(
        authors="Chennupati, Sistu, Yogamani, A Rawashdeh",
        year=2019,
        title=("MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task Learning"),
        venue="CVPR Workshops 2019",
        arxiv="1904.08492",
    ),
    permutation_equivariant=True,
)
