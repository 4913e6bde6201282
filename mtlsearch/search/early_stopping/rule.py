"""What an early-stopping rule is: it hears every epoch of every trial and says whether the trial stops.

A rule is a plain object without Ray, clock or global randomness: replaying a study's journal through a fresh one brings
back its state, which is how a study is continued, and how `study simulate` asks what another rule would have done.
"""

from __future__ import annotations

from typing import Protocol

from mtlsearch.search.study.pareto import Figures


class StoppingRule(Protocol):
    """Stateful: call `stops` once for each epoch, in the order in which they happened."""

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        """Whether trial `trial` stops after epoch `epoch`, which gave `figures` (validation metrics by name).

        The rule learns from the figures whatever the caller does with its answer: baselines go on.
        """
        ...


class Never:
    """No early stopping."""

    def stops(self, trial: int, epoch: int, figures: Figures) -> bool:
        return False
