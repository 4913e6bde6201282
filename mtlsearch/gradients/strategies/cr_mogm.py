"""CR-MOGM: moving averages of another strategy's weights (Zhou et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..hyperparameters import hyperparameter
from ..registry import Paper, StrategyInfo, get_strategy, strategy_info
from ..strategy import GramianStrategy, Step, grown


@dataclass(eq=False)
class CRMOGM(GramianStrategy):
    """λ_k = α·λ_(k−1) + (1 − α)·λ̂_k, where λ̂_k are the weights of the strategy `of`.

    Zhou et al. 2022, "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond": weights that
    follow the noise of a batch are correlated with its gradients, which averaging reduces. The first λ is λ̂. `of` is a
    Gramian strategy without parameters of its own, with its default hyperparameters.
    """

    name: ClassVar[str] = "cr_mogm"
    weights: Tensor | None = field(default=None, init=False, repr=False)
    of: str = hyperparameter(
        "mgda",
        search={"choice": ("mgda", "pcgrad", "cagrad")},
        description="the strategy whose weights are averaged",
    )
    alpha: float = hyperparameter(0.9, ge=0, le=1, search={"uniform": (0.5, 0.99)}, description="the past's share")

    def __post_init__(self) -> None:
        super().__post_init__()
        info = strategy_info(self.of)
        if info.kind != "gramian" or info.needs_tasks or self.of == self.name:
            raise ValueError(
                "of of strategy 'cr_mogm' must be a Gramian strategy without parameters of its own, e.g. "
                f"'mgda', but got of={self.of!r}"
            )
        inner = get_strategy(self.of)
        assert isinstance(inner, GramianStrategy)
        self._inner = inner

    def weigh(self, gramian: Tensor, step: Step) -> Tensor:
        tasks = list(step.tasks)
        fresh = self._inner.weigh(gramian, step)
        kept = grown(self.weights, (max(len(step.names), max(tasks) + 1),), fresh, torch.nan)
        before = torch.where(kept[tasks].isnan(), fresh, kept[tasks])
        kept[tasks] = self.alpha * before + (1 - self.alpha) * fresh
        self.weights = kept
        return kept[tasks]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "of": self._inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self._inner.load_state_dict(state.pop("of", {}))
        super().load_state_dict(state)


INFO = StrategyInfo(
    strategy=CRMOGM,
    paper=Paper(
        authors="Zhou, Zhang, Jiang, Zhong, Gu, Zhu",
        year=2022,
        title="On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond",
        venue="NeurIPS 2022",
    ),
    scale_equivariant=True,
    permutation_equivariant=True,
)
