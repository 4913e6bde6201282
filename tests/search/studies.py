"""Studies on disk that nobody ran: journals written line by line, as those of a search are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtlsearch.search.judging.confirm import fresh_seeds
from mtlsearch.search.plan.plan import SearchPlan, load_plan
from mtlsearch.search.study import stops
from mtlsearch.search.study.study import CONFIRMATION, JOURNAL
from mtlsearch.training.merge import merge
from mtlsearch.training.yaml_files import dump_yaml

EPOCHS = 9
NAMES = ("val/frequency_error", "val/phase_error")


class Writer:
    """Writes the folder of a study of examples/own_space.yaml, an event a line."""

    def __init__(self, folder: Path, plan: SearchPlan | None = None, data: str = "waves", **search: Any) -> None:
        self.plan = plan or load_plan("examples/own_space.yaml", [f"training.epochs={EPOCHS}"], search)
        self.folder, self.count, self.clock = folder, 0, 1.7e9
        (folder / "baselines").mkdir(parents=True)
        for file, tree in self.plan.files().items():
            (folder / file).write_text(dump_yaml(tree))
        self.event("study", name=folder.name, space=self.plan.digest, data=data)

    def event(self, kind: str, **fields: Any) -> None:
        self.clock += 1.0
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write(json.dumps({"event": kind, **fields, "time": self.clock}) + "\n")

    def trial(
        self,
        curves: Sequence[Sequence[float]],
        point: dict[str, Any] | None = None,
        *,
        label: str = "",
        phase: str = "search",
        seed: int = 0,
        end: str = "finished",
        reason: str = "",
        test: dict[str, float] | None = None,
        conflict: float | None = None,
    ) -> int:
        """curves: the figures of each epoch. end: "" leaves the trial without one. Returns the trial's number."""
        number, self.count = self.count, self.count + 1
        point = self.point() if point is None else point
        config = {**self.plan.config_of(self.plan.space.at(point)).tree(), "seed": seed}
        if phase == "full":
            assert self.plan.settings.proxy is not None
            config = merge(config, self.plan.settings.proxy.full)
        self.event("trial", number=number, phase=phase, label=label, config=config, point=point)
        best = [math.inf]
        for epoch, figures in enumerate(curves, start=1):
            row = {"epoch": float(epoch), **dict(zip(NAMES, figures))}
            if epoch - 1 in {stage["until"] for stage in config["training"]["stages"]} or figures[0] < best[0]:
                best = list(figures)
            row |= {f"best/{name}": value for name, value in zip(NAMES, best)} | {"best/epoch": float(epoch)}
            row |= {"time/train_s": 2.0, "time/val_s": 0.5, "time/samples_per_s": 100.0}
            if conflict is not None:
                row["conflict/frequency/phase"] = conflict
            self.event("epoch", number=number, row=row)
        if end:
            reason = reason or (stops.stop_reason(stops.EARLY, len(curves)) if end == "stopped" else "")
            environment = {"threads": 1, "hardware": {"cpu": "a CPU", "gpu": None}}
            self.event("end", number=number, status=end, reason=reason, test=test or {}, environment=environment)
        return number

    def point(self, **changes: Any) -> dict[str, Any]:
        """A point of the space with those values; keys by their last word."""
        point = {"model.width": 32, "strategy": "pcgrad", "optimizer.lr": 0.01, "schedule": "cosine"}
        return point | {key.replace("__", "."): value for key, value in changes.items()}

    def drawn(self, rng: np.random.Generator) -> dict[str, Any]:
        schedule = str(rng.choice(["cosine", "onecycle"]))
        point = self.point(
            model__width=int(rng.integers(8, 65)),
            strategy=str(rng.choice(["weighted_sum", "uncertainty", "pcgrad"])),
            optimizer__lr=float(10 ** rng.uniform(-3, -1)),
            schedule=schedule,
        )
        return point | ({"schedule.onecycle.pct_start": float(rng.uniform(0.1, 0.5))} if schedule == "onecycle" else {})

    def confirm(self, name: str, values: Sequence[float], point: dict[str, Any] | None = None) -> None:
        """A run a seed, each figure of which is the value, on test too."""
        seeds = fresh_seeds(self.plan.settings.seed, len(values))
        for seed, value in zip(seeds, values):
            test = {figure.removeprefix("val/"): value for figure in NAMES}
            self.trial([(value, value)] * EPOCHS, point, label=name, phase="confirm", seed=seed, test=test)

    def constant(self, value: float) -> None:
        """The last line of confirmation.csv."""
        figures = [f"{split}/{name.removeprefix('val/')}" for split in ("val", "test") for name in NAMES]
        lines = ",".join(["name", *figures]), ",".join(["constant prediction", *[str(value)] * len(figures)])
        (self.folder / CONFIRMATION).write_text("\n".join(lines) + "\n")


def large_study(folder: Path, count: int = 200) -> Writer:
    """A study of many trials of every kind: the learning rate decides, a third is stopped, some fail."""
    rng = np.random.default_rng(0)
    study = Writer(folder, num_samples=count, confirm={"top": 1, "seeds": 5})
    study.trial(curve(1.0, EPOCHS, rng), label="own_problem", conflict=-0.2)
    best, winner = math.inf, 0
    for _ in range(count - 1):
        point = study.drawn(rng)
        level = 0.2 + (math.log10(point["optimizer.lr"]) + 1.7) ** 2 + 0.02 * rng.random()
        sees = {"pcgrad": -0.3 + 0.2 * rng.random()}.get(point["strategy"])
        kind = rng.random()
        if kind < 0.05:
            reason = f"loss 'phase' became nan in epoch 2 at learning rate {point['optimizer.lr']:.3g}"
            study.trial(curve(level, 1, rng), point, end="failed", reason=reason)
        elif kind < 0.4:
            rung = int(rng.choice([2, 6]))
            study.trial(curve(1.5 * level, rung, rng), point, end="stopped", conflict=sees)
        else:
            curves = curve(level, EPOCHS, rng)
            number = study.trial(curves, point, conflict=sees)
            if min(curves)[0] < best:
                best, winner = min(curves)[0], number
    study.confirm(f"trial {winner}", [best + 0.01 * step for step in range(5)])
    study.confirm("own_problem", [1.0 + 0.02 * step for step in range(5)])
    study.constant(3.0)
    return study


def curve(level: float, epochs: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    return [
        (level * (1 + 3 / epoch**2) * (1 + 0.01 * rng.random()), level * (1 + 2 / epoch) * (1 + 0.3 * rng.random()))
        for epoch in range(1, epochs + 1)
    ]
