"""What a figure of the report shows, apart from how it is drawn: `interactive` and `stills` each draw all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: after Okabe and Ito, whose colours the colour-blind tell apart, as they read on light and on dark
WINNER, BASELINE, GOOD, OTHER = "#d55e00", "#2f86d1", "#009e73", "#8c8c8c"
FAINT = "#8c8c8c66"  # lines of which there are many
DIVERGING = ("#b2182b", "#f7f7f7", "#2166ac")  # −1, 0, 1
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442")

Symbol = Literal["circle", "star", "diamond"]
Numbers = Sequence[float]
"""NaN where there is none: a line breaks there, and a point is not drawn"""


@dataclass(frozen=True)
class Axis:
    title: str = ""
    log: bool = False
    span: tuple[float, float] | None = None
    """what is shown at first; None: everything"""
    ticks: tuple[tuple[float, str], ...] | None = None
    """None: numbers"""


@dataclass(frozen=True)
class Line:
    x: Numbers
    y: Numbers
    name: str
    color: str
    width: float = 1.8
    dashed: bool = False
    steps: bool = False
    """each value holds until the next"""


@dataclass(frozen=True)
class Points:
    x: Numbers
    y: Numbers
    name: str
    color: str
    symbol: Symbol = "circle"
    hollow: bool = False
    texts: Sequence[str] = ()
    """shown when one points at them"""
    spread_x: Numbers | None = None
    """half lengths of error bars"""
    spread_y: Numbers | None = None


@dataclass(frozen=True)
class Bars:
    """Horizontal, one a row from y = 0 up."""

    lengths: Numbers
    color: str
    name: str = ""


@dataclass(frozen=True)
class Heat:
    """values (rows, columns) from −1 to 1, the first row at y = 0."""

    values: Sequence[Numbers]
    name: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Line | Points | Bars | Heat, ...]
    wide: bool = False
    """takes the whole width of the page"""
    height: int = 300
    """pixels on the page"""
    least_width: int = 0
    """pixels; a narrower screen scrolls"""


@dataclass(frozen=True)
class Chart:
    """Panels that belong together: one PNG file, and one picture each on the page. name: of the file, without .png."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def readable_span(values: Numbers, mode: str) -> tuple[float, float] | None:
    """The part of an axis where the good values lie; None where that is nearly all of it.

    From the best value as far beyond the upper quartile as that is from the best: one diverged training would
    otherwise make a flat line of all others.
    """
    sign = 1.0 if mode == "min" else -1.0
    costs = sorted(sign * value for value in values if math.isfinite(value))
    if not costs:
        return None
    best, quartile = costs[0], costs[int(0.75 * (len(costs) - 1))]
    worst = quartile + (quartile - best)
    if costs[-1] <= worst or quartile == best:
        return None
    margin = 0.05 * (worst - best)
    ends = sign * (best - margin), sign * worst
    return min(ends), max(ends)


def grouped(lines: Sequence[tuple[Numbers, Numbers]]) -> tuple[list[float], list[float]]:
    """Many lines as one series with a break after each."""
    x: list[float] = []
    y: list[float] = []
    for own_x, own_y in lines:
        x += [*own_x, math.nan]
        y += [*own_y, math.nan]
    return x, y


def whole_ticks(last: int) -> tuple[tuple[float, str], ...]:
    """Ticks at whole numbers from 1 to `last`, at most ten."""
    step = math.ceil(last / 10)
    return tuple((float(number), str(number)) for number in range(step, last + 1, step))
