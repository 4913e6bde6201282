"""Charts as PNG files, for papers and slides: the page's panels side by side in one picture."""

from __future__ import annotations

import math
import warnings
from functools import singledispatch
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mtlsearch.search.report.chart import DIVERGING, Axis, Bars, Chart, Heat, Line, Panel, Points

_DPI = 130
#: inches of a panel, and how many stand side by side
_WIDTH, _COLUMNS = 5.2, 3
#: letters that a panel is wide, and ticks whose labels must stand upright
_LETTERS, _UPRIGHT = 50, 14
_INCH = 90.0  # of the page's pixels
_STYLE: dict[Any, Any] = {"font.size": 9, "text.parse_math": False, "axes.formatter.useoffset": False}


def save(chart: Chart, path: Path) -> None:
    """Draws `chart` into `path`."""
    columns = 1 if all(panel.wide for panel in chart.panels) else min(_COLUMNS, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    height = max(panel.height for panel in chart.panels) / _INCH
    width = max(_WIDTH * columns, 8.0)
    with warnings.catch_warnings(), matplotlib.rc_context(_STYLE):
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks
        drawing = Figure(figsize=(width, height * rows), layout="constrained")
        FigureCanvasAgg(drawing)
        for position, panel in enumerate(chart.panels, start=1):
            _draw_panel(drawing.add_subplot(rows, columns, position), panel)
        drawing.savefig(path, dpi=_DPI)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(fill(panel.title, _LETTERS), loc="left", fontsize=10)
    axes.grid(alpha=0.25, linewidth=0.6)
    for one in panel.series:
        _draw(one, axes)
    _set_axis(axes, "x", panel.x)
    _set_axis(axes, "y", panel.y)
    if sum(bool(one.name) for one in panel.series) > 1:
        axes.legend(fontsize=7.5, framealpha=0.7)


def _set_axis(axes: Axes, which: str, axis: Axis) -> None:
    settings: dict[str, object] = {f"{which}label": axis.title}
    if axis.log:
        settings[f"{which}scale"] = "log"
    if axis.span is not None:
        settings[f"{which}lim"] = axis.span
    axes.set(**settings)
    if axis.log:
        drawn = axes.xaxis if which == "x" else axes.yaxis
        drawn.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=10))
        drawn.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # names are no mathematics
        drawn.set_minor_formatter(NullFormatter())
    if axis.ticks is not None:
        labels = [label for _, label in axis.ticks]
        turned: dict[str, Any] = {}
        if which == "x" and sum(map(len, labels)) > _LETTERS:
            upright = len(labels) > _UPRIGHT
            turned = {"rotation": 90, "fontsize": 7} if upright else {"rotation": 30, "ha": "right"}
        set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
        set_ticks([place for place, _ in axis.ticks], labels, **turned)


@singledispatch
def _draw(one: object, axes: Axes) -> None:
    raise TypeError(f"nothing draws a {type(one).__name__}")


@_draw.register
def _line(one: Line, axes: Axes) -> None:
    style = {"linestyle": "--" if one.dashed else "-", "drawstyle": "steps-post" if one.steps else "default"}
    axes.plot(one.x, one.y, color=one.color, linewidth=0.8 * one.width, label=one.name or None, **style)  # type: ignore[arg-type]


@_draw.register
def _points(one: Points, axes: Axes) -> None:
    marker, size = {"circle": ("o", 5.0), "star": ("*", 13.0), "diamond": ("D", 6.0)}[one.symbol]
    axes.errorbar(
        one.x, one.y, xerr=one.spread_x, yerr=one.spread_y, fmt=marker, markersize=size, color=one.color,
        markerfacecolor="none" if one.hollow else one.color, linewidth=1.2, capsize=2, label=one.name or None,
    )  # fmt: skip


@_draw.register
def _bars(one: Bars, axes: Axes) -> None:
    axes.barh(range(len(one.lengths)), one.lengths, color=one.color, label=one.name or None)


@_draw.register
def _heat(one: Heat, axes: Axes) -> None:
    axes.grid(False)
    values = np.array([list(row) for row in one.values], dtype=float)
    image = axes.imshow(
        values,
        cmap=LinearSegmentedColormap.from_list("diverging", DIVERGING),
        vmin=-1,
        vmax=1,
        aspect="auto",
        origin="lower",
    )
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, label=one.name)
