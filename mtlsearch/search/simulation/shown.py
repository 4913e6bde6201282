"""A replay in words, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from mtlsearch.search.plan.settings import RandomSampler
from mtlsearch.search.simulation.outcome import BEST_SHARE, Outcome
from mtlsearch.search.simulation.replay import Replay

#: row -> field of Outcome
_COUNTS = {
    "trials begun": "begun",
    "trained to their end": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "beyond what is known": "unknown",
    "epochs": "epochs",
    "epochs at most": "epochs_at_most",
    "epochs saved by stopping": "epochs_saved",
    "stopped, better than what was found": "better_stopped",
    f"stopped, of the best {BEST_SHARE:.0%}": "best_stopped",
    "stopped, and nobody knows": "stopped_unknown",
}
#: what a replay is asked for: nothing is an answer too
_ALWAYS = ("better_stopped", "best_stopped")


def replay_table(replay: Replay) -> Table:
    """The study beside its simulation: medians and, over several seeds, quartiles."""
    seeds = len(replay.simulated)
    heading = "simulated" if seeds == 1 else f"simulated, median [quartiles] of {seeds} seeds"
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("the study", justify="right")
    table.add_column(heading, justify="right")
    for name in replay.settings.objectives:
        figures = [one.figures.get(name, np.nan) for one in replay.simulated]
        table.add_row(f"found: {name}", _figure(replay.own.figures.get(name, np.nan)), _spread(figures, _figure))
    same = sum(one.found == replay.own.found for one in replay.simulated)
    found = _trial(replay.simulated[0]) if seeds == 1 else f"{same} × the same"
    table.add_row("found: trial", _trial(replay.own), found)
    for words, field in _COUNTS.items():
        own, counts = getattr(replay.own, field), [getattr(one, field) for one in replay.simulated]
        if own or any(counts) or field in _ALWAYS:
            table.add_row(words, str(own), _spread(counts, lambda value: f"{value:g}"))
    return table


def replay_lines(replay: Replay) -> list[str]:
    """What was simulated, and what its numbers cannot say."""
    settings = replay.settings
    rule = _options(settings.early_stopping.model_dump())
    order = f"sampler {_options(settings.sampler.model_dump())}" if replay.sampled else "the study's order of trials"
    lines = [f"{replay.name}: early stopping {rule}, {order}, {replay.workers} at one time"]
    if replay.sampled:
        even = isinstance(settings.sampler, RandomSampler)
        taken = "any of them with the same chance" if even else "of what is suggested, the nearest one not yet taken"
        lines.append(
            f"Only the study's {replay.trials} trials are known and tried: {taken}. So the simulated search can find "
            "nothing that the study did not try."
        )
    if replay.censored:
        lines.append(
            f"Of {replay.censored} of the {replay.trials} trials the end is not known. One that would go on ends after "
            "its last known epoch and wins nothing, though in truth it might have: what was found is the least that "
            "would have been, the epochs lie between those stated and those at most."
        )
    return lines


def replay_json(replay: Replay) -> dict[str, Any]:
    return {
        "study": replay.name,
        "early_stopping": replay.settings.early_stopping.model_dump(),
        "sampler": replay.settings.sampler.model_dump() if replay.sampled else None,
        "workers": replay.workers,
        "trials": replay.trials,
        "censored": replay.censored,
        "own": asdict(replay.own),
        "simulated": [asdict(outcome) for outcome in replay.simulated],
    }


def _options(settings: dict[str, Any]) -> str:
    name, *options = settings.pop("name"), *(f"{key} {value:g}" for key, value in settings.items() if value is not None)
    return f"{name} ({', '.join(options)})" if options else name


def _trial(outcome: Outcome) -> str:
    return "none" if outcome.found is None else str(outcome.found)


def _figure(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4g}"


def _spread(values: list[float], write: Any) -> str:
    if len(values) == 1:
        return str(write(values[0]))
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75]) if not np.isnan(values).all() else [np.nan] * 3
    return f"{write(middle)} [{write(low)}, {write(high)}]"
