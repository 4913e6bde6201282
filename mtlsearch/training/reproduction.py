"""Training a recorded run again, and saying what is the same and what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mtlsearch.training import environment
from mtlsearch.training.loop import Report
from mtlsearch.training.memory import ran_out_of_memory
from mtlsearch.training.merge import differences
from mtlsearch.training.problem import Progress
from mtlsearch.training.recipes import apply_overrides, parse_run_config
from mtlsearch.training.record import (
    NOT_REPEATED,
    RunRecord,
    compare_histories,
    environment_differences,
    largest_difference,
)
from mtlsearch.training.run import run_training

#: so many differing figures are listed; the rest is counted
_SHOWN = 8
#: relative difference that figures of another number of workers may have: they add up the same numbers in another order
_ORDER_OF_SUMS = 1e-4


@dataclass(frozen=True)
class Reproduction:
    """The outcome: differing config values, differing environment, differing figures; one line each."""

    epochs: int
    compared: int
    config: list[str]
    environment: list[str]
    metrics: list[str]
    difference: float = 0.0
    """the largest relative one: see `largest_difference`"""
    workers: tuple[int, int] = (1, 1)
    """of the recorded run, and now"""

    @property
    def identical(self) -> bool:
        return not self.config and not self.metrics

    @property
    def tolerance(self) -> float:
        """The relative difference with which a run counts as repeated: none, but for the order of sums."""
        return 0.0 if self.workers[0] == self.workers[1] else _ORDER_OF_SUMS

    @property
    def repeated(self) -> bool:
        return not self.config and self.difference <= self.tolerance

    @property
    def _rule(self) -> str:
        then, now = (f"{count} worker{'s' * (count > 1)}" for count in self.workers)
        if not self.tolerance:
            return f"compared bit for bit, as {then} recorded and repeated it"
        return f"compared within {self.tolerance:g}, as {then} recorded and {now} repeated it, in another order of sums"

    def lines(self) -> list[str]:
        if self.identical:
            lines = [f"identical bit for bit: {self.compared} figures over {self.epochs} epochs"]
        elif self.metrics:
            verdict = "repeated, not bit for bit" if self.repeated else "not identical"
            count = f"{len(self.metrics)} of {self.compared} figures differ"
            lines = [f"{verdict}: {count}, at most by {self.difference:.2g} of the metric's largest value"]
            lines.append(self._rule)
            lines += [f"  {line}" for line in self.metrics[:_SHOWN]]
            lines += [f"  … and {len(self.metrics) - _SHOWN} more"] * (len(self.metrics) > _SHOWN)
        else:
            lines = [f"the {self.compared} figures are the same, but not the config"]
        lines += [f"config differs from the recorded run: {line}" for line in self.config]
        lines += [f"environment differs from the recorded run: {line}" for line in self.environment]
        if self.metrics and not self.config and not self.environment:
            lines.append("nothing else that the record knows of differs: config, code, versions, threads, hardware")
        return lines


def reproduce(
    record: RunRecord,
    overrides: Iterable[str] = (),
    *,
    report: Report | None = None,
    progress: Progress | None = None,
    micro_batch: int | Literal["auto"] | None = None,
) -> Reproduction:
    """Trains `record` again in this process: its config, seed and threads, as many epochs of its schedule as it had.

    micro_batch: most samples at one time, so that what several workers trained fits on one device; the steps stay those
    of the whole batch. "auto": as many as one of the recorded workers took, and half of that, again and again, where
    memory runs out.

    Raises:
        InputError: the recorded config is not valid here, or its strategy takes no portions of a batch.
    """
    config = parse_run_config(apply_overrides(record.config, overrides), "recorded config")
    whole = config.training.batch_size
    portion = math.ceil(whole / record.environment.get("workers", 1)) if micro_batch == "auto" else micro_batch or whole
    while True:
        try:
            run = run_training(
                config,
                report=report,
                progress=progress,
                threads=record.environment["threads"],
                stop_after=len(record.history),
                objective=record.objective,
                micro_batch=portion if portion < whole else None,
            )
            break
        except Exception as failure:
            if micro_batch != "auto" or portion == 1 or not ran_out_of_memory(failure):
                raise
        portion = math.ceil(portion / 2)
    as_run = record.config_as_run if record.config_as_run is not None else record.config
    as_run = {**as_run, "training": {"stages": [], **as_run.get("training", {})}}  # of a record that knew of none
    here = environment.describe(type(run.problem))
    return Reproduction(
        epochs=len(run.result.history),
        compared=sum(not key.startswith(NOT_REPEATED) for row in record.history for key in row),
        config=differences(as_run, config.tree()),
        environment=environment_differences(record.environment, here),
        metrics=compare_histories(record.history, run.result.history),
        difference=largest_difference(record.history, run.result.history),
        workers=(record.environment.get("workers", 1), here.get("workers", 1)),
    )
