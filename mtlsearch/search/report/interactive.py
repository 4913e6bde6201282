"""Charts as plotly.js draws them: one figure, as plain data for JSON, of each panel.

Colours of paper, ink and grid are the page's, and come with it: light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from markupsafe import escape

from mtlsearch.search.report.chart import DIVERGING, Axis, Bars, Heat, Line, Numbers, Panel, Points

Trace = dict[str, Any]
#: significant digits of a number on the page: more than a screen has pixels
_DIGITS = 6
#: from which the powers of ten are ticks enough
_MANY_DECADES = 1.5


def figure(panel: Panel) -> dict[str, Any]:
    """`{"data": …, "layout": …}` of one panel."""
    named = [one.name for one in panel.series if one.name]
    return {
        "data": [_trace(one) for one in panel.series],
        "layout": {
            "height": panel.height,
            "margin": {"l": 8, "r": 12, "t": 10, "b": 8},
            "showlegend": len(named) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 11}},
            "hovermode": "closest",
            "xaxis": _axis(panel.x),
            "yaxis": _axis(panel.y),
        },
    }


def _axis(axis: Axis) -> dict[str, Any]:
    drawn: dict[str, Any] = {"title": {"text": _text(axis.title), "font": {"size": 12}}, "automargin": True}
    if axis.log:
        decades = math.log10(axis.span[1] / axis.span[0]) if axis.span is not None else math.inf
        drawn |= {"type": "log", "tickformat": "~g", "dtick": "D2" if decades < _MANY_DECADES else 1}
    if axis.span is not None:
        drawn["range"] = [math.log10(end) if axis.log else end for end in axis.span]
    if axis.ticks is not None:
        drawn |= {
            "tickmode": "array",
            "tickvals": [place for place, _ in axis.ticks],
            "ticktext": [_text(label) for _, label in axis.ticks],
            "ticklabeloverflow": "allow",
            "zeroline": False,
        }
    return drawn


@singledispatch
def _trace(one: object) -> Trace:
    raise TypeError(f"nothing draws a {type(one).__name__}")


@_trace.register
def _line(one: Line) -> Trace:
    line = {"color": one.color, "width": one.width}
    line |= ({"dash": "dash"} if one.dashed else {}) | ({"shape": "hv"} if one.steps else {})
    hover = {"hoverinfo": "x+y+name"} if one.name else {"hoverinfo": "x+y"}
    return _scatter(one, "lines") | {"line": line} | hover


@_trace.register
def _points(one: Points) -> Trace:
    size = {"circle": 8, "star": 15, "diamond": 10}[one.symbol]
    symbol = f"{one.symbol}-open" if one.hollow else one.symbol
    marker = {"color": one.color, "symbol": symbol, "size": size, "line": {"width": 1.5 if one.hollow else 0}}
    trace = _scatter(one, "markers") | {"marker": marker}
    if one.texts:
        trace |= {"text": [_text(text) for text in one.texts], "hoverinfo": "text+x+y"}
    for axis, spread in (("error_x", one.spread_x), ("error_y", one.spread_y)):
        if spread is not None:
            trace[axis] = {"type": "data", "array": _plain(spread), "color": one.color, "thickness": 1.5}
    return trace


@_trace.register
def _bars(one: Bars) -> Trace:
    rows = list(range(len(one.lengths)))
    x = _plain(one.lengths)
    return {"type": "bar", "orientation": "h", "x": x, "y": rows, "marker": {"color": one.color}, "hoverinfo": "x"}


@_trace.register
def _heat(one: Heat) -> Trace:
    return {
        "type": "heatmap",
        "z": [_plain(row) for row in one.values],
        "zmin": -1,
        "zmax": 1,
        "colorscale": list(zip((0, 0.5, 1), DIVERGING)),
        "colorbar": {"thickness": 10, "len": 1, "title": {"text": "cosine", "font": {"size": 11}}},
        "hoverinfo": "z",
        "xgap": 1,
        "ygap": 1,
    }


def _scatter(one: Line | Points, mode: str) -> Trace:
    name, shown = _text(one.name), bool(one.name)
    return {"type": "scatter", "mode": mode, "x": _plain(one.x), "y": _plain(one.y), "name": name, "showlegend": shown}


def _plain(values: Numbers | Sequence[float]) -> list[float | None]:
    """Numbers for JSON, which knows no NaN."""
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in map(float, values)]


def _text(words: str) -> str:
    """plotly.js takes some HTML in its texts; names that come from files are no HTML."""
    return str(escape(words))
