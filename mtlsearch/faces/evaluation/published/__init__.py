"""The results that the papers print: one file per paper beside this one, every row of every table.

A row belongs to the data set and protocol of its table, and its figures compare with those of no other: `data` is our
name of that data set, as `python -m mtlsearch.data` knows it. Metrics have our names: `nme` is the mean of the yaw
bins' means ("All"), `nme_whole` a mean over all images. A `note` says where a row contradicts itself or the text;
`verified` is false for a figure that was not read in its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field

from mtlsearch.faces.evaluation.accumulator import FaceScores
from mtlsearch.training.schema import Section, validate
from mtlsearch.training.yaml_files import parse_yaml

#: what a row may state beside the metrics of `FaceScores`: counts of the network
SIZES = ("parameters", "macs", "flops")


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table of a paper.

    data: our name of the data set; protocol: what was measured, in words; own: the paper's own method, not one that it
    compares with; metrics: NME in percent, MAE in degrees, sizes as counts; printed: the same in the paper's digits.
    """

    paper: str
    table: str
    method: str
    own: bool
    data: str
    protocol: str
    metrics: Mapping[str, float]
    printed: Mapping[str, str]
    note: str
    verified: bool

    @property
    def label(self) -> str:
        """The method and where its figures are printed."""
        return f"{self.method} [{self.paper}, {self.table}]" + ("" if self.verified else " (unverified)")


def _positive(text: str) -> str:
    if not 0 < float(text) < math.inf:
        raise ValueError(f"a figure must be a positive number, got {text}")
    return text


Figure = Annotated[str, AfterValidator(_positive)]


class _Row(Section):
    method: str
    own: bool = False
    metrics: dict[str, Figure]
    note: str = ""
    verified: bool = True


class _Table(Section):
    table: str
    data: str
    protocol: str
    rows: Annotated[list[_Row], Field(min_length=1)]


class _Paper(Section):
    paper: str
    title: str
    tables: list[_Table]


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every row of every file, in the papers' order; the targets beyond the papers come last."""
    files = [item for item in resources.files(__name__).iterdir() if item.name.endswith(".yaml")]
    rows = []
    for file in sorted(files, key=lambda item: (item.name == "targets.yaml", item.name)):
        paper = validate(_Paper, parse_yaml(file.read_text(encoding="utf-8"), as_text=True), file.name)
        for table in paper.tables:
            for row in table.rows:
                unknown = set(row.metrics) - {*FaceScores.names, *SIZES}
                if unknown:
                    raise ValueError(f"{file.name}, {table.table}, {row.method}: no metric of ours: {sorted(unknown)}")
                rows.append(
                    PublishedRow(
                        paper.paper,
                        table.table,
                        row.method,
                        row.own,
                        table.data,
                        table.protocol,
                        MappingProxyType({name: float(text) for name, text in row.metrics.items()}),
                        MappingProxyType(row.metrics),
                        row.note,
                        row.verified,
                    )
                )
    return tuple(rows)


def published_for(data: str) -> tuple[PublishedRow, ...]:
    """The rows on one data set."""
    return tuple(row for row in published_rows() if row.data == data)
