"""Names of what trials are compared by: metrics of the validation split, `val/…`, and costs of the model, `cost/…`."""

from __future__ import annotations

_METRIC, _COST = "val/", "cost/"


def is_cost(name: str) -> bool:
    """Whether an objective is a cost of the model, measured once in a training, and of no split."""
    return name.startswith(_COST)


def is_constant(name: str) -> bool:
    """Whether an objective is the same each time that it is measured, as sizes are and times are not."""
    return is_cost(name) and name != f"{_COST}latency_ms"


def metric_of(name: str) -> str:
    """An objective without the split that the search sees: "nme" of "val/nme"; a cost keeps its name."""
    return name.removeprefix(_METRIC)


def cost_of(name: str) -> str:
    """The cost that an objective names: "macs" of "cost/macs"."""
    return name.removeprefix(_COST)
