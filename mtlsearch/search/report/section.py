"""A section of the report: a sentence on how to read it, and what is to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlsearch.search.report.chart import Chart


@dataclass(frozen=True)
class Table:
    heading: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False
    """shown when asked for"""
    words: int = 1
    """columns from the left that hold words; the others hold numbers"""


@dataclass(frozen=True)
class Picture:
    title: str
    path: Path


@dataclass(frozen=True)
class Section:
    """Shown in this order: how to read it, warnings, notes, tables, charts, pictures, commands."""

    key: str
    title: str
    reading: str
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[tuple[str, str]] = ()
    """what for, and the line"""


def short_names(names: Sequence[str], longest: int = 32) -> dict[str, str]:
    """Dotted keys by their last words, two or as many more as tell them apart, cut off at the left where too long."""
    words = {name: name.split(".") for name in names}
    short = dict.fromkeys(names, "")
    for count in range(2, max(map(len, words.values()), default=0) + 2):
        taken = Counter(short.values())
        for name in names:
            if taken[short[name]] > 1 or not short[name]:
                short[name] = ".".join(words[name][-count:])
    return {name: word if len(word) <= longest else f"…{word[1 - longest :]}" for name, word in short.items()}
