"""Photographs and videos with their predictions drawn in, and the numbers as JSON and CSV beside them.

    <output>/<name of the input>    with outlines and axes; a video becomes .mp4
    <output>/predictions.json, predictions.csv   every face: file, frame, crop, angles, landmarks

Coordinates are pixels of the photograph as a viewer shows it (its EXIF orientation applied), the origin at the centre
of pixel (0, 0), y down. Neither inputs nor what else is in the folder are ever written over, but for the pictures of
earlier predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.datasets.dataset import REACH
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.geometry import crop_from_box
from mtlsearch.faces.pictures.contact_sheet import save_image
from mtlsearch.faces.pictures.drawing import draw_axes, draw_dense, draw_outlines
from mtlsearch.faces.prediction.files import CSV_FILE, JSON_FILE, PredictionFiles, earlier_pictures
from mtlsearch.faces.prediction.predicting import FacePrediction, predict_crops, whole_image
from mtlsearch.faces.systems import System

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")

Locate = Callable[[Bytes], list[Floats]]
"""an image (H, W, 3) RGB -> the square crops (4,) of its faces; raises InputError where it cannot have any"""


def in_box(box: Floats) -> Locate:
    """One face, in a detector's box (4,): left, top, right, bottom, pixels."""

    def locate(image: Bytes) -> list[Floats]:
        height, width = image.shape[:2]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            raise InputError(f"the box {box.tolist()} lies outside its {width}×{height} pixels")
        if np.abs(box).max() > REACH * max(height, width):
            raise InputError(f"the box {box.tolist()} reaches far beyond its {width}×{height} pixels")
        return [crop_from_box(box)]

    return locate


def everywhere(image: Bytes) -> list[Floats]:
    """One face, which fills the image."""
    return [whole_image(image)]


def by_detector(detect: Callable[[Bytes], list[Floats]]) -> Locate:
    """All faces that a detector gives boxes (4,) of."""
    return lambda image: [crop_from_box(box) for box in detect(image)]


def parse_box(text: str) -> Floats:
    """`left,top,right,bottom` in pixels -> (4,). InputError for anything else."""
    try:
        box = np.array([float(part) for part in text.split(",")])
    except ValueError:
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise InputError(
            f"--box: write it as left,top,right,bottom in pixels, for example 120,80,260,240; got {text!r}"
        )
    return box


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """The files to read: those given, and in a folder's place its images and videos by name. InputError for none."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in (*IMAGES, *VIDEOS))
        if not inside:
            raise InputError(f"{path} holds no image or video ({', '.join((*IMAGES, *VIDEOS))})")
        files += inside
    return files


@dataclass
class Annotator:
    """Reads inputs, draws what a system finds in them, and writes the numbers.

    model, image_size: see `predict_crops`; locate: where the faces are; dense: draw and write the dense points where
    the system has them; say: takes a line per face and per fault.
    """

    model: System
    image_size: int
    locate: Locate
    dense: bool = False
    say: Callable[[str], None] = print
    count: int = 0
    faults: int = 0

    def run(self, inputs: Sequence[Path], output: Path, facts: dict[str, Any]) -> None:
        """Annotates every input into the folder `output`; one that cannot be used is said, counted and left out.

        facts: what predictions.json says first. Whatever ends the work, the numbers of what was done are written.
        Raises InputError, before anything is written, where an input would be written over.
        """
        earlier = earlier_pictures(output)
        targets = _targets(inputs, output, earlier)
        output.mkdir(parents=True, exist_ok=True)
        conventions = {
            "coordinates": "pixels of the upright photograph, origin at the centre of pixel (0, 0), y down",
            "angles": "degrees, R = Rx(pitch)·Ry(yaw)·Rz(roll), as AFLW2000-3D",
        }
        pictures = sorted(earlier | {target.name for _, target in targets})
        with PredictionFiles(output, {**facts, **conventions}, pictures) as files:
            for source, target in targets:
                try:
                    if source.suffix.lower() in VIDEOS:
                        self._video(source, target, files)
                    else:
                        self._photograph(source, target, files)
                except InputError as error:
                    self.faults += 1
                    text = str(error)
                    self.say(text if str(source) in text else f"{source}: {text}")
                finally:
                    self.count = files.count

    def _photograph(self, source: Path, target: Path, files: PredictionFiles) -> None:
        image = load_image(source, upright=True)
        save_image(self._annotate(image, source, None, files), target)

    def _video(self, source: Path, target: Path, files: PredictionFiles) -> None:
        """Under another name until it is whole: what has the name of a video is one."""
        unfinished = target.with_name(f".{target.stem}.partial.mp4")
        writer = None
        try:
            for number, (frame, rate) in enumerate(_frames(source)):
                height, width = frame.shape[:2]
                if writer is None:
                    code = cv2.VideoWriter.fourcc(*"mp4v")
                    writer = cv2.VideoWriter(str(unfinished), code, rate, (width, height))
                    if not writer.isOpened():
                        raise InputError(f"{target} cannot be written as a video by this OpenCV")
                marked = self._annotate(frame, source, number, files)
                writer.write(np.ascontiguousarray(marked[..., ::-1]))
            if writer is None:
                raise InputError(f"{source} is no video that this OpenCV can read")
            writer.release()
            unfinished.replace(target)
        finally:
            if writer is not None:
                writer.release()
            unfinished.unlink(missing_ok=True)

    def _annotate(self, image: Bytes, source: Path, frame: int | None, files: PredictionFiles) -> Bytes:
        """A copy of the image with its faces drawn; they are written and said."""
        where = str(source) if frame is None else f"{source}, frame {frame}"
        faces = predict_crops(self.model, self.image_size, image, self.locate(image))
        if not faces:
            self.say(f"{where}: no face found; written as it is")
        drawn = image.copy()
        for number, face in enumerate(faces, 1):
            if self.dense and face.dense is not None:
                draw_dense(drawn, face.dense)
            draw_outlines(drawn, face.landmarks)
            draw_axes(drawn, face.landmarks, face.angles)
            pitch, yaw, roll = face.angles
            self.say(f"{where}, face {number}: pitch {pitch:+.1f}°, yaw {yaw:+.1f}°, roll {roll:+.1f}°")
            files.add(_record(face, source, frame, number, self.dense))
        return drawn


def _frames(source: Path) -> Iterator[tuple[Bytes, float]]:
    """The frames (H, W, 3) RGB of a video, each with the video's rate; none where OpenCV cannot read it."""
    if not source.is_file():
        raise InputError(f"cannot read {source}: no such file")
    capture = cv2.VideoCapture(str(source))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(frame[..., ::-1]), rate if 1 <= rate <= 240 else 25.0
    finally:
        capture.release()


def _targets(inputs: Sequence[Path], output: Path, earlier: set[str]) -> list[tuple[Path, Path]]:
    """Each input with the file it is drawn to: its own name, and a number where that is taken by another input or by a
    file that no earlier prediction drew. InputError where it would be an input."""
    real = {source.resolve() for source in inputs}
    files = {_identity(source) for source in inputs if source.exists()}

    def exists(target: Path) -> bool:
        there = target.exists()
        if target.resolve() in real or (there and _identity(target) in files):
            raise InputError(f"--output: {target} is an input, and inputs are never written over; name another folder")
        return there

    taken: set[str] = set()
    pairs = []
    for source in inputs:
        suffix = ".mp4" if source.suffix.lower() in VIDEOS else source.suffix
        if suffix.lower() not in (*IMAGES, ".mp4"):
            suffix = ".png"  # it will not be read, and its fault is said then
        name, number = f"{source.stem}{suffix}", 1
        while name.lower() in taken or (exists(output / name) and name not in earlier):
            number += 1
            name = f"{source.stem}-{number}{suffix}"
        taken.add(name.lower())
        pairs.append((source, output / name))
    for name in (JSON_FILE, CSV_FILE):
        exists(output / name)
    return pairs


def _identity(path: Path) -> tuple[int, int]:
    """Of a file, whatever links lead to it."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _record(face: FacePrediction, source: Path, frame: int | None, number: int, dense: bool) -> dict[str, Any]:
    record: dict[str, Any] = {"file": str(source), "face": number}
    if frame is not None:
        record["frame"] = frame
    record["crop"] = np.round(face.crop, 3).tolist()
    record["angles"] = dict(zip(("pitch", "yaw", "roll"), np.round(face.angles, 3).tolist()))
    record["landmarks"] = np.round(face.landmarks, 3).tolist()
    if dense and face.dense is not None:
        record["dense"] = np.round(face.dense, 3).tolist()
    return record
