"""Trials that failed, by reason."""

from __future__ import annotations

import re
from collections import defaultdict

from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord
from mtlsearch.search.study.study import TrialState

_NUMBERS = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?|\b(nan|inf)\b")
#: trials that are named in one row
_NAMED = 12


def section(study: StudyRecord) -> Section:
    groups: defaultdict[str, list[TrialState]] = defaultdict(list)
    for trial in study.trials:
        if trial.status == "failed":
            groups[_NUMBERS.sub("#", trial.reason)].append(trial)
    rows = [
        (str(len(trials)), _numbers(trials), trials[0].reason)
        for trials in sorted(groups.values(), key=lambda trials: -len(trials))
    ]
    failed, every = sum(map(len, groups.values())), len(study.trials)
    running = [trial for trial in study.trials if trial.status == "running"]
    notes = [f"{failed} of {every} trials failed." if failed else "No trial failed."]
    if running:
        notes.append(f"Without an end in the journal, running or cut off: {_numbers(running)}.")
    return Section(
        key="failures",
        title="Failed trials",
        reading="Reasons that differ only in numbers are one row; the sampler was told of each failure.",
        notes=notes,
        tables=[Table(("trials", "which", "reason of the first"), rows, words=3)] if rows else [],
    )


def _numbers(trials: list[TrialState]) -> str:
    named = ", ".join(str(trial.number) for trial in trials[:_NAMED])
    return f"{named}, …" if len(trials) > _NAMED else named
