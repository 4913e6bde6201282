"""What a configuration must satisfy before it is tried: a size of its model, a predicate of the user's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from mtlsearch.errors import InputError
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.plan.settings import Constraints
from mtlsearch.training.config import RunConfig
from mtlsearch.training.costs import measure_costs
from mtlsearch.training.loop import choose_device
from mtlsearch.training.problem import HasExample, find_problem

Predicate = Callable[[dict[str, Any]], object]

#: sections of every problem's config in which nothing changes the model's size
_NOT_OF_THE_MODEL = frozenset(RunConfig.model_fields) - {"problem"}
#: points that are drawn before a space is taken to hold none that satisfies its constraints
DRAWS = 1000


class Checker:
    """Says of configs whether they satisfy the constraints. It builds a model once for each that differs."""

    def __init__(self, constraints: Constraints) -> None:
        self._limits = {"parameters": constraints.max_params, "macs": constraints.max_macs}
        self._limits = {name: limit for name, limit in self._limits.items() if limit is not None}
        self._predicate = _find(constraints.predicate) if constraints.predicate else None
        self._path = constraints.predicate
        self._known: dict[str, dict[str, float]] = {}

    def fault(self, config: RunConfig) -> str:
        """What a config violates, in words; "" where it satisfies everything. What cannot be said is a violation: a
        predicate that raises, a model that cannot be built."""
        try:
            return self._fault(config)
        except Exception as error:  # a user's code: no reason for a whole search to end
            return f"it cannot be checked: {type(error).__name__}: {error}"

    def _fault(self, config: RunConfig) -> str:
        if self._predicate is not None and not self._predicate(config.tree()):
            return f"{self._path} refuses it"
        costs = self._costs(config) if self._limits else {}
        for name, limit in self._limits.items():
            if limit is not None and costs[name] > limit:
                return f"its model has {costs[name]:,.0f} {name}, above {limit:,.0f}"
        return ""

    def _costs(self, config: RunConfig) -> dict[str, float]:
        of_the_model = {key: value for key, value in config.tree().items() if key not in _NOT_OF_THE_MODEL}
        key = json.dumps(of_the_model, sort_keys=True)
        if key not in self._known:
            problem = find_problem(config.problem)(config)
            assert isinstance(problem, HasExample)  # the plan saw to it
            self._known[key] = measure_costs(problem, list(self._limits), choose_device("cpu"))
        return self._known[key]


def check_baselines(plan: SearchPlan) -> None:
    """Raises InputError where a baseline violates the constraints, or models cannot be measured."""
    constraints = plan.settings.constraints
    if constraints.max_params is not None or constraints.max_macs is not None:
        for problem in {tree["problem"] for tree in plan.probe_trees()}:
            if not hasattr(find_problem(problem), "example"):
                raise InputError(
                    f"search.constraints: {problem} has no example(), so its models cannot be measured; add one, or "
                    "use a predicate"
                )
    checker = Checker(constraints)
    for baseline in plan.baselines:
        if fault := checker.fault(baseline.config):
            raise InputError(
                f"baseline {baseline.name} violates search.constraints: {fault}; leave it out of start_with or allow it"
            )


def _find(path: str) -> Predicate:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise InputError(f"search.constraints.predicate: {path!r} cannot be imported: {error}") from None
    if not callable(found):
        raise InputError(f"search.constraints.predicate: module {module!r} has no function {name!r}")
    return found
