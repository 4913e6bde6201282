"""Search: space, study, executors, early stopping, confirmation. Knows problems only through their protocol."""

from typing import TYPE_CHECKING

from mtlsearch._imports import lazy_names

if TYPE_CHECKING:
    from mtlsearch.search.phases import SearchOutcome
    from mtlsearch.search.plan.plan import SearchPlan, load_plan, shipped_spaces
    from mtlsearch.search.run import run_search
    from mtlsearch.search.study.study import TrialState, read_trials

__all__ = [
    "SearchOutcome",
    "SearchPlan",
    "TrialState",
    "load_plan",
    "read_trials",
    "run_search",
    "shipped_spaces",
]

# a process that trains trials imports `mtlsearch.search.trials.trainable` and waits for nothing of the search itself
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("SearchPlan", "load_plan", "shipped_spaces"), "plan.plan"),
        "SearchOutcome": "phases",
        "run_search": "run",
        **dict.fromkeys(("TrialState", "read_trials"), "study.study"),
    },
)
