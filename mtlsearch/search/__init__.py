"""Search: space, study, executors, early stopping, confirmation. Knows problems only through their protocol."""

from mtlsearch.search.plan import SearchPlan, load_plan, shipped_spaces
from mtlsearch.search.run import SearchOutcome, run_search
from mtlsearch.search.study import TrialState, read_trials

__all__ = ["SearchOutcome", "SearchPlan", "TrialState", "load_plan", "read_trials", "run_search", "shipped_spaces"]
