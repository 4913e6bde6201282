"""Folders of unfinished work, beside the place of what is being made: gone on with, or left alone.

Such a folder holds the plan of the work in `plan.json`. Nothing that a user may want is deleted: neither a folder of
another origin that happens to have the name, nor hours of work because an option was mistyped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtlsearch.errors import InputError

PLAN_FILE = "plan.json"


def goes_on(scratch: Path, plan: Mapping[str, Any], work: str) -> bool:
    """Whether the folder holds work of this plan. If not, there is no such folder when this returns.

    plan: JSON's types, with `kind`, a word for what is made; work: pattern of the files that hold finished work. Raises
    InputError where the folder is none of ours, or holds work of another plan.
    """
    if not scratch.exists() and not scratch.is_symlink():
        return False
    try:
        found = json.loads((scratch / PLAN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == plan:
        return True
    if not isinstance(found, dict) or found.get("kind") != plan["kind"]:
        if scratch.is_dir() and not scratch.is_symlink() and not any(scratch.iterdir()):
            scratch.rmdir()
            return False
        raise InputError(
            f"{scratch} is in the way: it is the place of an unfinished {plan['kind']}, and holds none that can be "
            f"gone on with. Move it or delete it, or choose another folder"
        )
    if any(scratch.rglob(work)):
        differing = "; ".join(_differences(found, plan))
        raise InputError(
            f"{scratch} holds an unfinished {plan['kind']} with other settings ({differing}). "
            f"Give the same settings to go on with it, or delete that folder to begin anew"
        )
    shutil.rmtree(scratch)
    return False


def begin(scratch: Path, plan: Mapping[str, Any]) -> None:
    """An empty folder with the plan in it."""
    scratch.mkdir(parents=True)
    with (scratch / PLAN_FILE).open("w", encoding="utf-8") as stream:
        json.dump(plan, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _differences(found: Mapping[str, Any], plan: Mapping[str, Any], at: str = "") -> list[str]:
    lines = []
    for name in sorted({*found, *plan}):
        there, now = found.get(name), plan.get(name)
        if isinstance(there, dict) and isinstance(now, dict):
            lines += _differences(there, now, f"{at}{name}.")
        elif there != now:
            lines.append(f"{at}{name}: {_short(there)} there, {_short(now)} now")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:17]}…"
