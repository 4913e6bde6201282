"""Where the faces in a folder really come from, when it only has the layout of a published data set.

`python -m mtlsearch.data export` leaves a file in the folder that says so, and every data set that is opened looks for
it: rendered or repeated faces must never pass for the published photographs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mtlsearch.errors import InputError

ORIGIN_FILE = "EXPORTED_BY_MTLSEARCH.json"


@dataclass(frozen=True)
class Origin:
    """faces: what they are, in words; rendered: whether they are this library's own renderings; pack: the digest of the
    pack that was written out."""

    faces: str
    rendered: bool
    pack: str

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / ORIGIN_FILE).write_text(text + "\n", encoding="utf-8")


def find_origin(root: Path, names: Iterable[str]) -> Origin | None:
    """What the folder of a data set says, or one above it or on the way to its samples `names`; None for a data set as
    its authors gave it. InputError for a file that is there and does not say it."""
    folders = [root.resolve() / folder for folder in {name.rpartition("/")[0] for name in names}]
    for place in sorted({place for folder in folders for place in (folder, *folder.parents)}):
        if _exists(place / ORIGIN_FILE):
            return _read(place / ORIGIN_FILE)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name from a list may be none that a file can have
        return False


def _read(path: Path) -> Origin:
    try:
        origin = Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not say where these faces come from ({error}); export them again") from None
    if not isinstance(origin.faces, str) or not isinstance(origin.rendered, bool):
        raise InputError(f"{path} does not say where these faces come from; export them again")
    return origin
