"""The page: sections and charts in one HTML file that needs nothing else, and the charts as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mtlsearch.search.report import interactive, stills
from mtlsearch.search.report.section import Picture, Section
from mtlsearch.search.report.source import StudyRecord

REPORT = "report.html"
FIGURES = "figures"


@dataclass(frozen=True)
class _Plot:
    """A panel on the page."""

    figure: dict[str, Any]
    wide: bool
    title: str


def write_page(study: StudyRecord, sections: Sequence[Section], folder: Path) -> str:
    """Writes the PNG files of all charts into `folder`, and returns the page.

    Raises OSError where `folder` cannot be written.
    """
    for section in sections:
        for chart in section.charts:
            stills.save(chart, folder / f"{chart.name}.png")
    environment = Environment(
        loader=PackageLoader("mtlsearch.search.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plots"] = _plots
    environment.filters["inlined"] = _inlined
    script = Markup(get_plotlyjs())
    return environment.get_template("report.html").render(
        study=study,
        sections=sections,
        figures=folder.name,
        plotly_js=script,
        plotly_version=plotly.__version__,
    )


def _plots(section: Section) -> list[_Plot]:
    return [
        _Plot(interactive.figure(panel), panel.wide, panel.title or chart.title)
        for chart in section.charts
        for panel in chart.panels
    ]


def _inlined(picture: Picture) -> str:
    kind = "jpeg" if picture.path.suffix in (".jpg", ".jpeg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture.path.read_bytes()).decode('ascii')}"
