"""The record of a run: its config, its environment and every metric, enough to repeat it and to compare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError, model_validator

from mtlsearch.errors import InputError
from mtlsearch.training.loop import Row
from mtlsearch.training.merge import differences
from mtlsearch.training.yaml_files import dump_yaml, read_yaml, write_text

RECORD = "record.yaml"
#: figures that a clock gave, or a search measured beside the training
NOT_REPEATED = ("time/", "cost/", "best/cost/")
BEST_RECORD = "best.yaml"


@dataclass(frozen=True)
class RunRecord:
    """What `reproduce` needs. The file holds the config twice: to be read and edited, and as it ran."""

    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[Row]
    objective: tuple[str, str]
    about: dict[str, Any] = field(default_factory=dict)
    config_as_run: dict[str, Any] | None = None

    @property
    def best(self) -> Row:
        """The whole row of the best epoch by the objective, of the run's last stage."""
        if "best/epoch" in self.history[-1]:
            return self.history[int(self.history[-1]["best/epoch"]) - 1]
        name, mode = self.objective
        choose = min if mode == "min" else max
        return choose(self.history, key=lambda row: row[name])

    def save(self, path: Path) -> None:
        tree = {
            **self.about,
            "objective": {self.objective[0]: self.objective[1]},
            "best": {key: value for key, value in self.best.items() if key.startswith(("epoch", "val/"))},
            "config": self.config,
            "environment": self.environment,
            "history": self.history,
            "config_as_run": json.dumps(self.config_as_run or self.config, sort_keys=True),
        }
        write_text(path, dump_yaml(tree))


def load_record(path: Path) -> RunRecord:
    """Reads a record.yaml or best.yaml.

    Raises:
        InputError: the file is missing or is no record.
    """
    try:
        written = _RecordFile.model_validate(read_yaml(path))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the file"
        raise InputError(
            f"{path} is not the record of a run ({where}: {fault['msg'][0].lower()}{fault['msg'][1:]}); "
            "give a best.yaml or record.yaml that a search or a training wrote"
        ) from None
    return RunRecord(
        config=written.config,
        environment=written.environment,
        history=written.history,
        objective=next(iter(written.objective.items())),
        about=written.model_extra or {},
        config_as_run=written.config_as_run,
    )


class _RecordFile(BaseModel):
    """What a record's file must hold; what else is there says where the run comes from."""

    model_config = ConfigDict(extra="allow")
    config: dict[str, Any]
    environment: dict[str, Any]
    history: Annotated[list[dict[str, float]], Field(min_length=1)]
    objective: Annotated[dict[str, Literal["min", "max"]], Field(min_length=1, max_length=1)]
    config_as_run: Json[dict[str, Any]]
    best: dict[str, float] = {}

    @model_validator(mode="after")
    def _complete(self) -> _RecordFile:
        name = next(iter(self.objective))
        if not all({"epoch", name} <= row.keys() for row in self.history):
            raise ValueError(f"every row of history needs epoch and {name}")
        if not isinstance(self.environment.get("threads"), int) or not isinstance(self.environment.get("code"), dict):
            raise ValueError("environment needs threads and code")
        if not isinstance(self.config.get("training"), dict):
            raise ValueError("config needs its training section")
        return self


def find_record(path: Path) -> RunRecord:
    """The record at `path`, or that of the folder `path`: a trial's record.yaml, a study's best.yaml.

    Raises:
        InputError: as `load_record` does.
    """
    if path.is_dir():
        path = path / (RECORD if (path / RECORD).exists() else BEST_RECORD)
    return load_record(path)


def compare_histories(recorded: list[Row], repeated: list[Row]) -> list[str]:
    """One line for each recorded metric that is not bit for bit the same; keys of `NOT_REPEATED` are not compared."""
    lines = []
    for old, new in zip(recorded, repeated):
        for key in old:  # later versions add metrics, and an old record still repeats
            if key.startswith(NOT_REPEATED):
                continue
            was, now = old.get(key, math.nan), new.get(key, math.nan)
            if was != now and not (math.isnan(was) and math.isnan(now)):
                lines.append(f"epoch {int(old['epoch'])} {key}: {was!r} -> {now!r}")
    if len(recorded) != len(repeated):
        lines.append(f"epochs: {len(recorded)} -> {len(repeated)}")
    return sorted(lines)


def largest_difference(recorded: list[Row], repeated: list[Row]) -> float:
    """Of the figures that `compare_histories` compares, each relative to the largest that its metric has in `recorded`;
    infinite where one is NaN, or missing, on one side alone."""
    largest = 0.0
    sizes: dict[str, float] = {}
    for row in recorded:
        for key, value in row.items():
            sizes[key] = max(sizes.get(key, 0.0), abs(value)) if not math.isnan(value) else sizes.get(key, 0.0)
    for old, new in zip(recorded, repeated):
        for key, was in old.items():
            now = new.get(key, math.nan)
            if key.startswith(NOT_REPEATED) or was == now or (math.isnan(was) and math.isnan(now)):
                continue
            difference = abs(was - now) / sizes[key] if sizes[key] else math.inf
            largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest if len(recorded) == len(repeated) else math.inf


def environment_differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What of code, versions, threads and hardware is not as it was, one line each.

    The commit counts only where the digest of the source differs: the same code may lie in two commits.
    """
    lines = differences({"workers": 1, **recorded}, here)  # a record that knows of no workers is of one
    if all(recorded["code"].get(key) == here["code"].get(key) for key in ("digest", "problem")):
        lines = [line for line in lines if not line.startswith("code.")]
    return lines
