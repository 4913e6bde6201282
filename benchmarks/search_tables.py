"""Tables of learning curves: real trainings of random configurations, on which benchmarks/search_quality.py searches.

    python -m benchmarks.search_tables digits --configs 400
    python -m benchmarks.search_tables waves --configs 300
    python -m benchmarks.search_tables faces --configs 120

run in the repository's root. A table is a space, benchmarks/search_tables/NAME.yaml, and what came of points that are
drawn from it at random: NAME.npz with

    points       (N,) text, JSON of each point
    val, test    (N, E) float32, the first objective after each epoch on either split, NaN from where it diverged
    seconds      (N,) float32, training time of an epoch, on one thread
    made         text, JSON of the libraries and the hardware

Every configuration is trained whole, on one seed. A table that is there is gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtlsearch.search import load_plan
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.sampling.asking import Asker
from mtlsearch.training import TrainingDiverged, train
from mtlsearch.training.environment import describe, set_threads
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.recipes import parse_run_config

FOLDER = Path(__file__).parent / "search_tables"
#: what a problem's figures on the test split are called beside those of validation
TEST = "test_"


def scored_on_test(problem: type[Problem]) -> type[Problem]:
    """The problem with its figures on the test split beside those on validation, which the search is shown alone."""

    class ScoredOnTest(problem):  # type: ignore[valid-type, misc]
        def evaluate(self, model: torch.nn.Module, split: str) -> dict[str, float]:
            test = super().evaluate(model, "test")
            return super().evaluate(model, split) | {f"{TEST}{name}": value for name, value in test.items()}

    return ScoredOnTest


def learning_curve(tree: dict[str, Any], metric: str) -> tuple[np.ndarray, float]:
    """Trains a configuration: (2, E) the metric after each epoch on validation and test, and seconds an epoch."""
    config = parse_run_config(tree, "table")
    problem = scored_on_test(find_problem(config.problem))(config)
    problem.prepare()
    rows: list[dict[str, float]] = []
    curves = np.full((2, config.training.epochs), np.nan, np.float32)
    with suppress(TrainingDiverged):
        train(problem, config, report=rows.append, objective=(f"val/{metric}", "min"))
    for row in rows:
        curves[:, int(row["epoch"]) - 1] = row[f"val/{metric}"], row[f"val/{TEST}{metric}"]
    return curves, float(np.mean([row["time/train_s"] for row in rows] or [np.nan]))


def make(name: str, configs: int, seed: int) -> None:
    plan = load_plan(str(FOLDER / f"{name}.yaml"))
    (objective, _), path = plan.settings.first_objective, FOLDER / f"{name}.npz"
    random = SearchSettings(objectives=plan.settings.objectives, sampler={"name": "random"}, seed=seed)
    asker = Asker(plan.space, random)
    drawn = [asker.ask() for _ in range(configs)]
    points = [json.dumps(asked.params) for asked, _ in drawn]
    trees = [plan.config_of(tree).tree() for _, tree in drawn]
    problem = find_problem(trees[0]["problem"])
    if path.exists():
        with np.load(path) as table:
            done = min(len(table["points"]), configs)
            assert table["points"][:done].tolist() == points[:done], "made of another space or seed: remove it"
            curves, seconds = list(np.stack([table["val"], table["test"]], axis=1)), list(table["seconds"])
    else:
        curves, seconds = [], []
    made = json.dumps({**describe(problem), "seed": seed})
    for number in range(len(curves), configs):
        started = time.perf_counter()
        curve, cost = learning_curve(trees[number], objective.removeprefix("val/"))
        curves.append(curve)
        seconds.append(cost)
        val, test = np.stack(curves, axis=1).astype(np.float32)
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.savez_compressed(
                file, points=points[: number + 1], val=val, test=test, seconds=np.float32(seconds), made=made
            )
        os.replace(temporary, path)
        best, wall = np.nanmin(curve[0], initial=np.inf), time.perf_counter() - started
        print(f"{number + 1} of {configs}: {wall:.1f} s, best {best:.4g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in FOLDER.glob("*.yaml") if "_" not in path.stem))
    parser.add_argument("--configs", type=int, required=True, help="trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    set_threads(1)
    make(options.name, options.configs, options.seed)


if __name__ == "__main__":
    main()
