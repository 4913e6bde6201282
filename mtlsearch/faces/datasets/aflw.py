"""AFLW: 25,000 faces of Flickr photographs with up to 21 points (Köstinger et al., "Annotated Facial Landmarks in the
Wild", ICCV workshops 2011).

    <root>/aflw.sqlite          or <root>/data/aflw.sqlite
    <root>/flickr/0/…, 2/…, 3/… or <root>/data/flickr/…: the photographs, by the paths in the database

Angles: the database's radians in its order roll, pitch, yaw. Its roll has the other sign of 300W-LP's, so it is turned
round, as Hopenet does (Ruiz et al., CVPR workshops 2018); pitch and yaw stay, over their whole range (yaw beyond 120°).
AFLW has no split of its own: name the file that lists the test faces when packing, or photographs are drawn.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.geometry import crop_from_box

MAX_DATABASE_BYTES = 256 << 20
_MAX_ROWS = 1_000_000  # there are 26,000 faces; tables made to harm can join into any number
_TABLES = ("Faces", "FaceImages", "FacePose", "FaceRect", "FeatureCoords")
_FACES = """
    SELECT Faces.face_id, FaceImages.filepath, FacePose.roll, FacePose.pitch, FacePose.yaw,
           FaceRect.x, FaceRect.y, FaceRect.w, FaceRect.h
    FROM Faces JOIN FaceImages ON FaceImages.file_id = Faces.file_id AND FaceImages.db_id = Faces.db_id
         JOIN FacePose ON FacePose.face_id = Faces.face_id JOIN FaceRect ON FaceRect.face_id = Faces.face_id
    LIMIT ?
"""
_POINTS = "SELECT face_id, feature_id, x, y FROM FeatureCoords WHERE feature_id BETWEEN 1 AND 21 LIMIT ?"


class AFLW(FaceDataset):
    """AFLW's database. A face's name is its face_id; faces without a photograph, a rectangle, a pose or a point are
    left out and counted."""

    name = "aflw"
    ground_truth = "21 points of the database, visible ones only; NME over √(w·h) of the face rectangle (Zhang 2018)"
    points = 21

    def _list(self) -> list[str]:
        self._folder = self.root if (self.root / "aflw.sqlite").exists() else self.root / "data"
        path = self._folder / "aflw.sqlite"
        rows, faces = _query(path)
        self._points: dict[int, np.ndarray] = {}
        self._bad: dict[int, str] = {}
        for face, feature, x, y in rows[_POINTS]:
            points = self._points.setdefault(face, np.full((21, 2), np.nan))
            if isinstance(feature, int) and _are_numbers((x, y)):
                points[feature - 1] = x, y
            else:
                self._bad[face] = f"a point of it is not two finite numbers: {x!r}, {y!r}"
        self._rows = sorted((row for row in rows[_FACES] if row[0] in self._points), key=lambda row: row[0])
        for face, file, *numbers in self._rows:
            if not isinstance(file, str) or not _are_numbers(tuple(numbers)):
                self._bad[face] = f"its row is not a path and seven finite numbers: {file!r}, {numbers}"
        self.left_out = max(0, faces - len(self._rows))
        names = [str(row[0]) for row in self._rows]
        if len(set(names)) != len(names):
            raise InputError(f"{path} lists a face twice: the join of its tables is not one row a face")
        return names

    def group(self, index: int) -> str:
        return str(self._rows[index][1])

    def files(self, index: int) -> list[Path]:
        return [self._folder / "flickr" / str(self._rows[index][1])]

    def shared_files(self) -> list[Path]:
        return [self._folder / "aflw.sqlite"]

    def _read(self, index: int) -> FaceSample:
        face, file, roll, pitch, yaw, *rectangle = self._rows[index]
        if face in self._bad:
            raise InputError(f"face {face} of {self._folder / 'aflw.sqlite'}: {self._bad[face]}")
        if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise InputError(f"face {face} of {self._folder / 'aflw.sqlite'} names the photograph {file!r}, outside it")
        x, y, width, height = rectangle
        if min(width, height) <= 0:
            raise InputError(f"face {face} of {self._folder / 'aflw.sqlite'} has the rectangle {rectangle}")
        box = np.array([x, y, x + width, y + height], np.float64)
        points = self._points[face]
        visible = np.isfinite(points).all(1) & (points != -1).all(1)
        image = load_image(self._folder / "flickr" / file)
        return face_sample(
            str(face),
            image,
            np.where(visible[:, None], points, 0.0),
            np.degrees([pitch, yaw, -roll]),
            visible=visible,
            box=box,
            crop=crop_from_box(box),
        )


def _query(path: Path) -> tuple[dict[str, list[tuple[Any, ...]]], int]:
    """Both queries' rows and the number of faces, of a database that is opened read-only, trusted with nothing and
    checked for its tables."""
    try:
        if path.stat().st_size > MAX_DATABASE_BYTES:
            raise InputError(f"{path} has more than {MAX_DATABASE_BYTES >> 20} MB, which AFLW's database has not")
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            kinds = dict(database.execute("SELECT lower(name), type || substr(sql, 1, 12) FROM sqlite_master"))
            for table in _TABLES:
                # a view or a virtual table could compute for ever
                if str(kinds.get(table.lower())).lower() != "tablecreate table":
                    raise InputError(f"{path} has no plain table {table}, as AFLW's database has")
            (faces,) = database.execute("SELECT count(*) FROM Faces").fetchone()
            rows = {query: database.execute(query, (_MAX_ROWS,)).fetchall() for query in (_FACES, _POINTS)}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise InputError(f"{path} is not AFLW's database ({error})") from error
    if max(map(len, rows.values())) == _MAX_ROWS:
        raise InputError(f"{path} gives {_MAX_ROWS:,} rows or more; AFLW has 26,000 faces of up to 21 points")
    for query in rows.values():
        for face, *_ in query:
            if not isinstance(face, int):
                raise InputError(f"{path} has a face of number {face!r}")
    return rows, faces


def _are_numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, int | float) and abs(value) < 1e9 for value in values)
