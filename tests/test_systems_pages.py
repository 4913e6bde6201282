"""Where docs/systems say that an equation is, it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "systems").glob("*.md"))
_LINK = re.compile(r"\[`([\w.]+)`\]\((\.\./\.\./mtlsearch/[\w/]+\.py)\)")


def names_in(path: Path) -> set[str]:
    """Functions and classes of a module, and `Class.member` of what classes define."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            name = member.target if isinstance(member, ast.AnnAssign) else member
            found.add(f"{node.name}.{getattr(name, 'name', getattr(name, 'id', ''))}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_that_a_page_points_at_is_there(page: Path) -> None:
    links = _LINK.findall(page.read_text())
    assert links or page.stem == "README"
    for name, path in links:
        assert name in names_in((page.parent / path).resolve()), f"{name} is not in {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_that_a_page_points_at_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([\w./-]+\.md)", page.read_text()):
        assert (page.parent / target).exists(), target
