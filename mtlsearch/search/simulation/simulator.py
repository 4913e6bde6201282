"""A search without trainings: workers on a virtual clock, a stopping rule, an order, and curves that are known."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

from mtlsearch.search.early_stopping import StoppingRule
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.orders import Order
from mtlsearch.search.study.pareto import Figures, Objectives

RunStatus = Literal["running", "finished", "stopped", "failed", "unknown"]


@dataclass
class Run:
    """A simulated trial. `number` counts the trials of the simulated search, as the stopping rule sees them."""

    number: int
    curve: Curve
    epochs: int = 0
    status: RunStatus = "running"
    """`unknown`: it would have gone on beyond what is known of its curve; `running`: the budget ended first"""
    spent: int = 0
    """epochs of the whole search when it ended"""
    time: float = 0.0
    """on the virtual clock, of its last epoch's end"""

    def best(self, objectives: Objectives) -> Figures:
        return self.curve.best(self.epochs, objectives)


def simulate(
    order: Order,
    rule: StoppingRule,
    objectives: Objectives,
    *,
    workers: int = 1,
    budget: int | None = None,
    num_samples: int | None = None,
) -> list[Run]:
    """The trials of a search, in the order in which they begin.

    As in a study: the rule learns from every epoch; baselines are not stopped, nor a trial after its last epoch; the
    order is told the best epoch of those that a trial has trained, stopped or not, or that it failed. The epoch of a
    failure counts whole. A trial that would go on where its curve is not known any more ends there as "unknown", and
    its worker is free, so that the epochs are the least that such a search takes.

    Args:
        budget: epochs of all trials together; what is under way then stays "running".
        num_samples: trials.
    """
    runs: list[Run] = []
    clock: list[tuple[float, int]] = []
    spent = 0

    def begin(now: float) -> None:
        curve = order.next() if num_samples is None or len(runs) < num_samples else None
        if curve is not None:
            runs.append(Run(len(runs), curve))
            heapq.heappush(clock, (now + curve.duration(1), runs[-1].number))

    for _ in range(workers):
        begin(0.0)
    while clock and (budget is None or spent < budget):
        now, number = heapq.heappop(clock)
        run = runs[number]
        run.epochs, run.time = run.epochs + 1, now
        spent += 1
        run.status = _after_epoch(run, rule)
        if run.status == "running":
            heapq.heappush(clock, (now + run.curve.duration(run.epochs + 1), number))
            continue
        run.spent = spent
        order.ended(run.curve, None if run.status == "failed" else run.best(objectives))
        begin(now)
    return runs


def _after_epoch(run: Run, rule: StoppingRule) -> RunStatus:
    curve, epoch = run.curve, run.epochs
    if epoch > len(curve.rows):
        return "failed"
    stops = rule.stops(run.number, epoch, curve.rows[epoch - 1])
    if epoch >= curve.epochs:
        return "failed" if curve.failed else "finished"
    if stops and not curve.label:
        return "stopped"
    return "unknown" if curve.censored and epoch == len(curve.rows) else "running"
