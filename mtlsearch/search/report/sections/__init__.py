"""The sections of the report, one module each, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from mtlsearch.search.report.section import Section
from mtlsearch.search.report.sections import (
    confirmation,
    conflicts,
    coordinates,
    cost,
    curves,
    failures,
    front,
    history,
    importances,
    overview,
    proxy,
    rungs,
    slices,
)
from mtlsearch.search.report.source import StudyRecord

SECTIONS: tuple[Callable[[StudyRecord], Section], ...] = (
    overview.section,
    confirmation.section,
    history.section,
    front.section,
    importances.section,
    coordinates.section,
    slices.section,
    curves.section,
    conflicts.section,
    rungs.section,
    proxy.section,
    failures.section,
    cost.section,
)
