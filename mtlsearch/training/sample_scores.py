"""Metrics sample by sample, so that a comparison can be made over the images that two models were scored on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError

SCORES = "scores.npz"


@dataclass(frozen=True)
class SampleScores:
    """One metric of one split: it is the mean of its groups' means. All groups have a sample."""

    values: npt.NDArray[np.float64]
    """(N,) each sample's figure"""
    groups: npt.NDArray[np.int64]
    """(N,) the group of each sample, from 0; -1 where the sample does not count"""

    @property
    def metric(self) -> float:
        """What the samples come to."""
        return float(np.mean([self.values[self.groups == group].mean() for group in self.names]))

    @property
    def names(self) -> npt.NDArray[np.int64]:
        """The groups in order."""
        names = np.unique(self.groups)
        return names[names >= 0]


Scores = Mapping[tuple[str, str], SampleScores]
"""(split, metric) -> its samples"""


def save_scores(path: Path, scores: Scores) -> None:
    """Writes `scores` as plain arrays."""
    arrays: dict[str, Any] = {}
    for (split, metric), one in scores.items():
        arrays |= {f"{split}/{metric}/values": one.values, f"{split}/{metric}/groups": one.groups}
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(path)


def load_scores(path: Path) -> Scores:
    """What `save_scores` wrote; nothing where there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {
                (split, metric): SampleScores(file[name], file[f"{split}/{metric}/groups"])
                for name in file.files
                if name.endswith("/values")
                for split, metric, _ in [name.split("/")]
            }
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile, zlib.error) as error:
        # a RuntimeError: where a flipped bit says that an archive is encrypted or packed in an unknown way
        raise InputError(f"{path} is damaged ({error}); remove it, and differences go over seeds alone") from None


def scores_or_none(path: Path) -> Scores:
    """What `save_scores` wrote; nothing where there is no such file or it is damaged."""
    try:
        return load_scores(path)
    except InputError:
        return {}
