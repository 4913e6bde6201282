"""`python -m mtlsearch.tune` with notes of its stages and of those of its worker groups."""

from __future__ import annotations

import sys

from benchmarks.search_cost.noted_exchange import NotedExchange
from benchmarks.search_cost.staged_tune import _command, command
from mtlsearch.search.trials import exchange

if __name__ == "__main__":
    exchange.Exchange = NotedExchange  # type: ignore[misc]
    sys.argv[0] = command.__file__
    _command.run("tune", command.main)
