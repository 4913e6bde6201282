"""The numbers that `python -m mtlsearch.predict` writes beside its pictures, face by face: those of a long video do not
stay in memory.

    <folder>/predictions.json   what it was made of, the names of the pictures, then every face on a line of its own
    <folder>/predictions.csv    a row per face; dense points are in the JSON file only

Both get their names when the work ends, whatever ends it, and then hold what was done.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from mtlsearch.errors import InputError

JSON_FILE, CSV_FILE = "predictions.json", "predictions.csv"
_FACES = ' "faces": ['


class PredictionFiles:
    """Takes records of faces: file, face, crop, angles, landmarks and, where they have them, frame and dense.

    facts: what the JSON file says first; pictures: the names of what is drawn into the folder.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], pictures: Sequence[str]) -> None:
        self.count = 0
        self._parts = {folder / name: folder / f".{name}.partial" for name in (JSON_FILE, CSV_FILE)}
        self._json, self._csv = (part.open("w", encoding="utf-8", newline="") for part in self._parts.values())
        head = {**facts, "pictures": list(pictures)}
        lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n" for name, value in head.items()]
        self._json.write("{\n" + "".join(lines) + _FACES)
        self._writer: csv.DictWriter[str] | None = None

    def __enter__(self) -> PredictionFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._json.write("\n ]\n}\n")
        if self._writer is None:
            self._csv.write("file\r\n")
        for stream in (self._json, self._csv):
            stream.close()
        for path, part in self._parts.items():
            part.replace(path)

    def add(self, record: dict[str, Any]) -> None:
        self._json.write((",\n  " if self.count else "\n  ") + json.dumps(record, ensure_ascii=False))
        row = _flat(record)
        if self._writer is None:
            self._writer = csv.DictWriter(self._csv, list(row))
            self._writer.writeheader()
        self._writer.writerow(row)
        self.count += 1


def earlier_pictures(folder: Path) -> set[str]:
    """The names of the pictures in a folder that earlier predictions drew, which new ones may replace.

    Raises InputError where a file of the names above is there and is not from an earlier prediction.
    """
    path = folder / JSON_FILE
    if not path.exists() and not (folder / CSV_FILE).exists():
        return set()
    try:
        with path.open(encoding="utf-8") as stream:
            head = "".join(takewhile(lambda line: not line.startswith(_FACES), stream))
        pictures = json.loads(head.rstrip().removesuffix(",") + "}")["pictures"]
        return {name for name in pictures if (folder / name).exists()}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"--output: {folder} holds a {JSON_FILE} or {CSV_FILE} that is not from an earlier prediction, and only "
            f"those are written over; name another folder"
        ) from None


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    row = {"file": record["file"], "frame": record.get("frame", ""), "face": record["face"]}
    row |= dict(zip(("crop_left", "crop_top", "crop_right", "crop_bottom"), record["crop"]))
    row |= record["angles"]
    for k, point in enumerate(record["landmarks"]):
        row |= {f"{axis}{k}": value for axis, value in zip("xyz", point)}
    return row
