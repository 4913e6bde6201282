"""Executors: where trials run. Each takes a searcher, a scheduler and a recorder, and runs trials to their end."""

from mtlsearch.search.executors.inline import Inline

__all__ = ["Inline"]
