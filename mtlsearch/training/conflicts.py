"""How the gradients of tasks stand to each other over an epoch: the mean cosine of each pair, for the epoch's row."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import torch

from mtlsearch.gradients import Diagnostics

PREFIX = "conflict/"
_BETWEEN = "/"  # trackers take few other marks in a name


def pair_of(key: str) -> tuple[str, str]:
    """The two tasks of a row's key: `conflict/landmarks/pose` -> ("landmarks", "pose")."""
    one, _, other = key.removeprefix(PREFIX).partition(_BETWEEN)
    return one, other


@dataclass
class Conflicts:
    """Means over the steps whose strategy looked at a Gramian; others cost nothing and say nothing.

    The sums stay on the device: the epoch waits for them once, when `row` is asked for.
    """

    _sums: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    """tasks that took part -> (2, K, K): sums of cosines, and of how many"""

    @torch.no_grad()
    def see(self, diagnostics: Diagnostics) -> None:
        if diagnostics.gramian is None:
            return
        cosines, sound = diagnostics.cosines, diagnostics.norms.isfinite()
        counted = (sound[:, None] & sound & diagnostics.gramian.isfinite()).to(cosines)
        seen = torch.stack([cosines.nan_to_num(0.0) * counted, counted])
        known = self._sums.get(diagnostics.tasks)
        self._sums[diagnostics.tasks] = seen if known is None else known + seen

    def row(self) -> dict[str, float]:
        """`{"conflict/a/b": mean cosine}` of each pair of tasks that was seen together."""
        totals: dict[str, list[float]] = {}
        for tasks, sums in self._sums.items():
            cosines, counts = sums.tolist()
            for (i, one), (j, other) in combinations(enumerate(tasks), 2):
                total = totals.setdefault(f"{PREFIX}{one}{_BETWEEN}{other}", [0.0, 0.0])
                total[0] += cosines[i][j]
                total[1] += counts[i][j]
        return {key: total / count for key, (total, count) in totals.items() if count}
