"""What the last combination saw: conflicts, norms and weights. Kept on the device, read when asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import gramian as _gramian


@dataclass(frozen=True)
class Diagnostics:
    """Of the last combination, over the shared parameters, for the K tasks that took part.

    tasks: their names. weights: (K,), or None for a strategy that combines rows without weights. gramian: (K, K)
    float64 of the unscaled gradients, or None for a loss strategy, which never sees gradients. Reading a property that
    is a Python number waits for the device; keeping the record does not.
    """

    tasks: tuple[str, ...]
    weights: Tensor | None = None
    gramian: Tensor | None = None

    @property
    def norms(self) -> Tensor:
        """(K,) gradient norms."""
        return _gramian.norms(self._needed())

    @property
    def cosines(self) -> Tensor:
        """(K, K) cosine similarities; 0 where a gradient is zero."""
        return _gramian.cosines(self._needed())

    @property
    def conflict_share(self) -> float:
        """The share of the pairs of tasks whose gradients have a negative inner product; 0 for one task."""
        inner = self._needed()
        pairs = torch.ones_like(inner, dtype=torch.bool).triu(1)
        return float((inner[pairs] < 0).double().mean()) if len(inner) > 1 else 0.0

    def _needed(self) -> Tensor:
        if self.gramian is None:
            raise RuntimeError(
                "no gradients of single tasks were computed in the last step (tasks: "
                f"{', '.join(self.tasks)}): loss strategies do one backward, and one task "
                "alone is plain training"
            )
        return self.gramian
