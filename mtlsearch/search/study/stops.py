"""Why trials stop before their last epoch: how a study writes it down, and how it is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlsearch.search.study.study import TrialState

EARLY = "early stopping"
BY_HAND = "stopped by hand"
_OUT_OF = "out of"


def out_of(what: str) -> str:
    """A budget is used up: `"time"`, `"GPU hours"`."""
    return f"{_OUT_OF} {what}"


def stop_reason(why: str, epochs: int) -> str:
    """What the journal holds of a trial that stopped: "early stopping after epoch 3"."""
    return f"{why} after epoch {epochs}"


def with_note(reason: str, trial: TrialState) -> str:
    """The reason of a trial's end, and that it was trained alone before, where it was."""
    note = f"{trial.postponed}, then trained alone" if trial.postponed else ""
    return "; ".join(part for part in (reason, note) if part)


def ending(trial: TrialState) -> str:
    """Where it stands: "finished", "stopped (early stopping after epoch 3)", "failed (CUDA out of memory)"."""
    return f"{trial.status} ({trial.reason})" if trial.reason else trial.status


def stopped_early(trial: TrialState) -> bool:
    """Whether it was the rule of early stopping that ended the trial, and not a user, a budget or the trial itself."""
    return trial.status == "stopped" and trial.reason.startswith(EARLY)


def out_of_budget(trial: TrialState) -> bool:
    """Whether the trial stopped because a budget was used up."""
    return trial.status == "stopped" and trial.reason.startswith(_OUT_OF)
