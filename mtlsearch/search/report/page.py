"""The page: sections and charts in one HTML file that needs nothing else, and the charts as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from mtlsearch.search.report import interactive, stills
from mtlsearch.search.report.chart import Panel
from mtlsearch.search.report.section import Picture, Section
from mtlsearch.search.report.source import StudyRecord

REPORT = "report.html"
FIGURES = "figures"
#: bytes of a PNG file that is no drawing any more
_LARGE = 200_000
#: pixels of a picture that says nothing when it is as narrow as a phone
_WIDE = 1000


@dataclass(frozen=True)
class _Plot:
    """A panel on the page."""

    figure: dict[str, Any]
    panel: Panel
    title: str


@dataclass(frozen=True)
class _Inlined:
    """A picture as a URL that holds it; a wide one is scrolled on a narrow screen."""

    url: str
    wide: bool


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
        _Plot(interactive.figure(panel), panel, panel.title or chart.title)
        for chart in section.charts
        for panel in chart.panels
    ]


def _inlined(picture: Picture) -> _Inlined:
    """Those as large as photographs are become JPEG, which is a tenth of them."""
    content, kind = picture.path.read_bytes(), "png"
    with Image.open(picture.path) as image:
        if len(content) > _LARGE:
            buffer = BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=88)
            content, kind = buffer.getvalue(), "jpeg"
        return _Inlined(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}", image.width > _WIDE)
