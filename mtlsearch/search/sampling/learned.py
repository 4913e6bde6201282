"""What a new study can learn from an old one: those of its trials that are points of the new space."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.plan.space import Point
from mtlsearch.search.study.study import Learned, read_trials

#: so many reasons are named
_SHOWN = 3


@dataclass(frozen=True)
class Lessons:
    """`trials` of an old study for the sampler of a new one, and in words why others are of no use."""

    folder: Path
    trials: list[Learned]
    left_out: Counter[str]

    def lines(self) -> list[str]:
        """For the screen."""
        lines = [f"learned from {len(self.trials)} trials of {self.folder}"]
        shown = self.left_out.most_common(_SHOWN)
        lines += [f"  {count} left out: {reason}" for reason, count in shown]
        rest = self.left_out.total() - sum(count for _, count in shown)
        return lines + [f"  {rest} more left out"] * (rest > 0)


def learn_from(folder: Path, plan: SearchPlan) -> Lessons:
    """The trials of the search in `folder` that `plan`'s sampler is told: whole configs that are points of its space,
    data and epochs included, with a finite figure for every objective. They are not run again and do not count.

    Raises:
        InputError: the folder holds no study, or nothing in it is of use.
    """
    trials: list[Learned] = []
    left_out: Counter[str] = Counter()
    for trial in read_trials(folder):
        if trial.phase != "search" or trial.status not in ("finished", "stopped"):
            continue
        figures = {name: trial.best.get(name, math.nan) for name in plan.settings.objectives}
        if not all(map(math.isfinite, figures.values())):
            left_out[f"no figure for {', '.join(name for name in figures if not math.isfinite(figures[name]))}"] += 1
            continue
        try:
            point: Point = plan.point_of(trial.config, "it")
        except InputError as error:
            left_out[str(error)] += 1
        else:
            trials.append((point, figures))
    if not trials:
        why = f": {next(iter(left_out))}" if left_out else ""
        raise InputError(f"--from-study {folder}: none of its trials is of use to the new study{why}")
    return Lessons(folder, trials, left_out)
