"""What the winner does, in pictures of the problem's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mtlsearch.search.report.section import Picture, Section


def section(pictures: Mapping[str, Path], split: str) -> Section | None:
    """None for a problem that draws nothing."""
    if not pictures:
        return None
    return Section(
        key="predictions",
        title="What the winner does",
        reading=(
            f"The weights of the winning trial on the {split} split, which they were chosen on: look at what the worst "
            "cases have in common."
        ),
        pictures=[Picture(title, path) for title, path in pictures.items()],
    )
