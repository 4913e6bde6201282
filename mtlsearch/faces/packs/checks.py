"""What a pack's manifest and labels must be, since packs come from other people too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtlsearch.faces.rendering.synthetic import LABELS

SYNTHETIC = "synthetic"
"""The source of rendered packs, where others name their data set"""

_LABEL_TYPES: dict[str, tuple[tuple[int, ...], str]] = {
    **LABELS,  # landmarks and visible may be of other shapes
    "dense": ((), "float32"),  # of any number of points
    "box": ((4,), "float32"),
    "crop": ((2, 3), "float64"),
    "name": ((), "U"),
}


def label_fault(labels: dict[str, npt.NDArray[Any]], count: int) -> str | None:
    """What is wrong with the labels of a split, by the table of `packs`."""
    if missing := {"landmarks", "visible", "angles"} - labels.keys():
        return f"no {', '.join(sorted(missing))}"
    points = labels["landmarks"].shape[1:2]
    for name, array in labels.items():
        if name not in _LABEL_TYPES:
            return f"{name!r} is no label of this version"
        shape, kind = _LABEL_TYPES[name]
        if name == "dense":
            fits = array.ndim == 3 and array.shape[0] == count and array.shape[1] >= 68 and array.shape[2] == 3
        elif name == "landmarks":
            fits = array.shape in [(count, k, d) for k in (21, 68) for d in (2, 3)]
        else:
            fits = array.shape == (count, *(points if name == "visible" else shape))
        if not fits or not (array.dtype.kind == "U" if kind == "U" else array.dtype == np.dtype(kind)):
            return f"{name} has shape {array.shape} and type {array.dtype} for {count} faces"
        if array.dtype.kind == "f" and not (np.isfinite(array) | (np.isnan(array) & (name == "angles"))).all():
            return f"{name} holds numbers that are not finite"
    return None


def check_facts(manifest: dict[str, Any], stored_size: int) -> None:
    """Raises KeyError or ValueError where a manifest lacks what `Pack` and its readers take from it."""
    source, image_size, limit = manifest["source"], manifest["image_size"], manifest.get("pose_limit")
    if not isinstance(source, str) or type(image_size) is not int or not 1 <= image_size <= stored_size <= 4096:
        raise ValueError(f"source {source!r}, image_size {image_size!r}, stored_size {stored_size!r}")
    if not isinstance(manifest["skipped"], list) or not (limit is None or isinstance(limit, int | float)):
        raise ValueError(f"skipped {manifest['skipped']!r}, pose_limit {limit!r}")
    needed = ("recipe", "generator_version") if source == SYNTHETIC else ("ground_truth", "published", "pose_limit")
    for name in needed:
        manifest[name]
    if source == SYNTHETIC and not isinstance(manifest["recipe"], dict):
        raise ValueError(f"recipe {manifest['recipe']!r}")
    if not isinstance(manifest.get("published"), int | None):
        raise ValueError(f"published {manifest['published']!r}")
