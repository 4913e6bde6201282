"""The record of a run: its config, its environment and every metric, enough to repeat it and to compare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlsearch.errors import InputError
from mtlsearch.training.loop import Row
from mtlsearch.training.merge import differences
from mtlsearch.training.yaml_files import dump_yaml, read_yaml, write_text

RECORD = "record.yaml"


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
        """The whole row of the best epoch by the objective."""
        name, mode = self.objective
        choose = min if mode == "min" else max
        return choose(self.history, key=lambda row: row[name])

    def edits(self) -> list[str]:
        """Values of `config` that are not those of the run, one line each."""
        return differences(self.config_as_run, self.config) if self.config_as_run is not None else []

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
    tree = read_yaml(path)
    missing = [key for key in ("config", "environment", "history", "objective", "config_as_run") if key not in tree]
    if missing:
        raise InputError(
            f"{path} is not the record of a run (it lacks {', '.join(missing)}); "
            "give a best.yaml or record.yaml that a search or a training wrote"
        )
    known = {"config", "environment", "history", "objective", "config_as_run", "best"}
    return RunRecord(
        config=tree["config"],
        environment=tree["environment"],
        history=tree["history"],
        objective=next(iter(tree["objective"].items())),
        about={key: value for key, value in tree.items() if key not in known},
        config_as_run=json.loads(tree["config_as_run"]),
    )


def find_record(path: Path) -> RunRecord:
    """The record at `path`, or record.yaml in the folder `path`. Raises InputError as `load_record` does."""
    return load_record(path / RECORD if path.is_dir() else path)


def compare_histories(recorded: list[Row], repeated: list[Row]) -> list[str]:
    """One line for each metric that is not bit for bit the same; `time/…` is not compared."""
    lines = []
    for old, new in zip(recorded, repeated):
        for key in old.keys() | new.keys():
            if key.startswith("time/"):
                continue
            was, now = old.get(key, math.nan), new.get(key, math.nan)
            if was != now and not (math.isnan(was) and math.isnan(now)):
                lines.append(f"epoch {int(old['epoch'])} {key}: {was!r} -> {now!r}")
    if len(recorded) != len(repeated):
        lines.append(f"epochs: {len(recorded)} -> {len(repeated)}")
    return sorted(lines)


def environment_differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What of code, versions, threads and hardware is not as it was, one line each.

    The commit counts only where the digest of the source differs: the same code may lie in two commits.
    """
    lines = differences(recorded, here)
    if recorded["code"]["digest"] == here["code"]["digest"]:
        lines = [line for line in lines if not line.startswith("code.")]
    return lines
