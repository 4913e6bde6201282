"""What a trial of one worker costs under the executor ray_train, beside its training: the first of a group, for which
all processes start, and those after it, which the same group trains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from benchmarks.search_cost.noted_exchange import CLOSED, CONTROLLED, ENDED, GIVEN, JOINED, TAKEN
from benchmarks.search_cost.notes import Note
from benchmarks.search_cost.waves import BEGUN, SCORED

LAUNCHED = "trial handed to Ray"
_DONE = "last score"
#: what lies before each of these notes of a trial, in order
_PARTS = {
    LAUNCHED: "end of the trial before, recorded; next point",
    GIVEN: "driver: process, imports",
    CONTROLLED: "controller: process, imports",
    JOINED: "worker: process, imports, process group",
    TAKEN: "job handed over",
    BEGUN: "data, model, what else is imported",
    _DONE: "training",
    CLOSED: "end of the training",
}


def parts_of(notes: Sequence[Note]) -> list[dict[str, float]]:
    """Seconds of each part of each trial, in order of the trials, which were trained one at a time by one group."""
    trials: list[dict[str, float]] = []
    for one in sorted(notes, key=lambda one: one.when):
        if one.what == LAUNCHED:
            trials.append({})
        if trials and one.what in (*_PARTS, SCORED):
            trials[-1][_DONE if one.what == SCORED else one.what] = one.when
    found, before = [], None
    for moments in trials:
        if before is not None:
            moments = {CLOSED + " before": before, **moments}
        before = moments[CLOSED]
        ordered = sorted(moments.items(), key=lambda moment: moment[1])
        found.append({_PARTS[what]: now - then for (_, then), (what, now) in pairwise(ordered)})
    return found


def shutdown_of(notes: Sequence[Note]) -> float:
    """Seconds from the end of the last trial until its group holds nothing."""
    last = {one.what: one.when for one in sorted(notes, key=lambda one: one.when)}
    return last[ENDED] - last[CLOSED]


def table(notes: Sequence[Note]) -> str:
    """Markdown: the first trial, and the median of the later ones."""
    first, *later = parts_of(notes)
    lines = ["| seconds of a trial | the first of a group | a later one |", "| --- | ---: | ---: |"]
    for part in _PARTS.values():
        after = [one[part] for one in later if part in one]
        cells = f"{first[part]:.2f}" if part in first else "–", f"{median(after):.2f}" if after else "–"
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append(f"| together | {sum(first.values()):.2f} | {median(sum(one.values()) for one in later):.2f} |")
    every = (sum(map(sum, (one.values() for one in [first, *later])))) / (1 + len(later))
    lines += ["", f"{every:.2f} s a trial over all {1 + len(later)}; {shutdown_of(notes):.2f} s to end the group.", ""]
    return "\n".join(lines)
