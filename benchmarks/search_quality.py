"""How good our searches are: samplers and stopping rules on three tables of real learning curves, at equal cost.

    python benchmarks/search_quality.py --output results/reference/search_quality       # ten minutes on two cores
    python benchmarks/search_quality.py --tables faces --seeds 2 --output /somewhere    # to see it work

The tables are those of benchmarks/search_tables.py; the searches run in the library's simulator, with the samplers and
rules of a study. Cost is epochs of training, all trials included. What a search would return at a cost is the best, by
validation, of the trials that have run to their end by then; its validation and test figures are shown. A stopped
trial's figure is no result. A table holds some hundred configurations: a suggestion goes to the nearest one not yet
taken, and random search takes any of them with the same chance.

`2×random` has twice the cost of the others. Where syne-tune is installed, its BOHB runs beside ours, through its own
scheduler on the same table; its ASHA with conformalized quantile regression, which takes minutes a search, when it is
asked for by `--methods`.

Every search is appended to searches.jsonl when it ends; a second call goes on after those that are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

from mtlsearch.search.early_stopping import make_rule
from mtlsearch.search.plan.plan import load_plan
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.plan.space import Space
from mtlsearch.search.simulation.curves import Curve
from mtlsearch.search.simulation.orders import make_order
from mtlsearch.search.simulation.simulator import Run, simulate
from mtlsearch.training.environment import describe

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TABLES = Path(__file__).parent / "search_tables"
WORKERS = 4

#: full trainings that the budget of each table pays for; on the digits random search's result with 60 is the target
FULL_RUNS = {"digits": 60, "faces": 30, "waves": 60}

METHODS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "2×random": {"sampler": "random"},
    "Sobol": {"sampler": "sobol"},
    "TPE": {"sampler": "tpe"},
    "median rule": {"sampler": "random", "early_stopping": "median"},
    "Hyperband": {"sampler": "random", "early_stopping": "hyperband"},
    "ASHA": {"sampler": "random", "early_stopping": "asha"},
    "ASHA + TPE": {"sampler": "tpe", "early_stopping": "asha"},
}
#: what a study does by `sampler: tpe, early_stopping: asha`
OURS = "ASHA + TPE"
PEERS = ("syne-tune BOHB", "syne-tune ASHA + CQR")

Steps = list[Any]
"""(epochs spent, validation, test) of each new incumbent"""


@dataclass(frozen=True)
class CurveTable:
    """A table of benchmarks/search_tables: curves on validation, and the test figures beside them, (N, E)."""

    name: str
    space: Space
    objective: str
    curves: tuple[Curve, ...]
    test: npt.NDArray[np.float32]

    @property
    def epochs(self) -> int:
        return self.curves[0].epochs

    @property
    def budget(self) -> int:
        return FULL_RUNS[self.name] * self.epochs


@lru_cache
def load_table(name: str) -> CurveTable:
    plan = load_plan(str(TABLES / f"{name}.yaml"))
    objective, _ = plan.settings.first_objective
    with np.load(TABLES / f"{name}.npz") as table:
        val, test, seconds = table["val"], table["test"], table["seconds"]
        points = [json.loads(text) for text in table["points"]]
    curves = []
    for number, (point, row) in enumerate(zip(points, val)):
        known = [{objective: float(value)} for value in row[np.isfinite(row)]]
        curves.append(
            Curve(
                number=number,
                point=point,
                rows=known,
                epochs=len(row),
                failed=len(known) < len(row),
                seconds=[float(seconds[number])] * len(known),
            )
        )
    return CurveTable(name, plan.space, objective, tuple(curves), test)


def search(table: CurveTable, method: str, seed: int, workers: int) -> list[Run]:
    objectives = {table.objective: "min"}
    budget = table.budget * (2 if method == "2×random" else 1)
    if method in PEERS:
        from search_peer import SyneTune

        peer = SyneTune(method, table.curves, table.space, table.objective, seed)
        return simulate(peer, peer, objectives, workers=workers, budget=budget)
    settings = SearchSettings.model_validate({"objectives": objectives, "seed": seed, **METHODS[method]})
    order = make_order(table.curves, table.space, settings)
    return simulate(order, make_rule(settings, table.epochs), objectives, workers=workers, budget=budget)


def trajectory(table: CurveTable, runs: Sequence[Run]) -> Steps:
    """(epochs spent, validation, test) of each new incumbent: the best of the trials that have run to their end."""
    steps: Steps = []
    for run in sorted((run for run in runs if run.status == "finished"), key=lambda run: run.spent):
        figures = [row[table.objective] for row in run.curve.rows]
        best = int(np.argmin(figures))
        if not steps or figures[best] < steps[-1][1]:
            steps.append((run.spent, figures[best], float(table.test[run.curve.number, best])))
    return steps


def anytime(steps: Steps, costs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(2, costs) validation and test of the incumbent at each cost; infinite before there is one."""
    spent = np.array([step[0] for step in steps])
    values = np.array([(np.inf, np.inf), *[step[1:] for step in steps]])
    return values[np.searchsorted(spent, costs, side="right")].T


@dataclass(frozen=True)
class Job:
    """One simulated search."""

    table: str
    method: str
    seed: int
    workers: int


def run(job: Job) -> Steps:
    table = load_table(job.table)
    return trajectory(table, search(table, job.method, job.seed, job.workers))


class Searches:
    """The searches on disk, a line each: a second call goes on after those that are there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._done = {Job(**line["job"]): line["steps"] for line in map(json.loads, lines)}

    def __getitem__(self, job: Job) -> Steps:
        return self._done[job]

    def complete(self, jobs: Sequence[Job], processes: int) -> None:
        missing = [job for job in jobs if job not in self._done]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn) as pool, self._path.open("a") as file:
            futures = {pool.submit(run, job): job for job in missing}
            for number, future in enumerate(as_completed(futures), start=1):
                job = futures[future]
                self._done[job] = [(spent, *map(_short, figures)) for spent, *figures in future.result()]
                file.write(json.dumps({"job": asdict(job), "steps": self._done[job]}) + "\n")
                file.flush()
                print(f"{number} of {len(missing)}: {job.table}, {job.method}, seed {job.seed}", flush=True)


def evaluate(name: str, methods: Sequence[str], seeds: int, workers: int, searches: Searches) -> dict[str, Any]:
    """Quartiles of validation and test over seeds at every cost, for each method."""
    table = load_table(name)
    costs = np.arange(1, table.budget + 1)
    results: dict[str, Any] = {}
    for method in methods:
        at = costs * 2 if method == "2×random" else costs
        values = np.array([anytime(searches[Job(name, method, seed, workers)], at) for seed in range(seeds)])
        quartiles = np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="nearest")  # no mean of infinities
        results[method] = {"val": quartiles[:, 0], "test": quartiles[:, 1]}
    random = results["random"]["val"][1]
    for own in results.values():
        own["to_target"] = [_first(costs, row <= random[-1]) for row in own["val"]]
        worse = own["val"][1] > random
        own["worse"] = [_first(costs, worse), int(costs[worse][-1])] if worse.any() else None
        own["worse_share"] = float(worse.mean())
    return {"costs": costs, "epochs": table.epochs, "trials": len(table.curves), "methods": results}


def _first(costs: npt.NDArray[np.int64], reached: npt.NDArray[np.bool_]) -> int | None:
    return int(costs[reached.argmax()]) if reached.any() else None


def markdown(name: str, result: Mapping[str, Any]) -> str:
    """The figures at the whole budget and a quarter of it, when random's result is reached, and where random leads."""
    quarter = len(result["costs"]) // 4 - 1
    titles = ["method", "validation at ¼", "validation", "test", "epochs to random's result", "worse than random"]
    size = f"{result['trials']} configurations × {result['epochs']} epochs"
    lines = [
        f"**{name}**: {size}, budget {result['costs'][-1]} epochs",
        "",
        f"| {' | '.join(titles)} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, own in result["methods"].items():
        cells = [_cell(own["val"][:, quarter]), _cell(own["val"][:, -1]), _cell(own["test"][:, -1])]
        early, middle, late = (value if value is not None else "–" for value in own["to_target"])
        between = (
            "nowhere"
            if own["worse"] is None
            else f"{own['worse_share']:.0%}, within {own['worse'][0]}–{own['worse'][1]}"
        )
        lines.append(f"| {' | '.join([method, *cells, f'{middle} [{early}, {late}]', between])} |")
    return "\n".join(lines) + "\n"


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows, as numbers; the searches themselves are in searches.jsonl."""
    methods = {
        method: {
            "val": [_short(value) for value in own["val"][:, -1]],
            "test": [_short(value) for value in own["test"][:, -1]],
            **{key: own[key] for key in ("to_target", "worse", "worse_share")},
        }
        for method, own in result["methods"].items()
    }
    return {
        "trials": result["trials"],
        "epochs": result["epochs"],
        "budget": int(result["costs"][-1]),
        "methods": methods,
    }


def _cell(quartiles: npt.NDArray[np.float64]) -> str:
    low, middle, high = (f"{value:.4g}" if np.isfinite(value) else "none" for value in quartiles)
    return f"{middle} [{low}, {high}]"


def figure(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Medians over seeds, of two methods with quartiles; a panel for each table."""
    drawn, panels = plt.subplots(1, len(results), figsize=(6 * len(results), 4.5), squeeze=False)
    for panel, (name, result) in zip(panels[0], results.items()):
        for method, own in result["methods"].items():
            low, middle, high = np.where(np.isfinite(own["val"]), own["val"], np.nan)
            (line,) = panel.plot(result["costs"], middle, label=method, lw=2.5 if method == OURS else 1.2)
            if method in ("random", OURS):
                panel.fill_between(result["costs"], low, high, color=line.get_color(), alpha=0.15, lw=0)
        random = result["methods"]["random"]["val"][1]
        panel.axhline(random[-1], color="0.6", lw=0.8, ls=":")
        # what comes before random search has finished a few trials would leave no room for the rest
        begun = 6 * result["epochs"]
        finals = [own["val"][1, -1] for own in result["methods"].values()]
        top = max(own["val"][1, begun] for own in result["methods"].values() if np.isfinite(own["val"][1, begun]))
        panel.set(title=name, xlabel="epochs", ylabel="validation, median", xscale="log")
        panel.set(xlim=(begun / 2, result["costs"][-1]), ylim=(min(finals) * 0.98, top * 1.1))
    panels[0, -1].legend(fontsize=8)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})


def _short(value: float) -> float | None:
    """Five digits; None where there is nothing yet."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--tables", nargs="*", choices=list(FULL_RUNS), default=list(FULL_RUNS))
    parser.add_argument("--methods", nargs="*", choices=[*METHODS, *PEERS], help="only these and random")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=WORKERS, help="trials at one time")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.seeds < 1:
        sys.exit("quartiles over seeds take one or more")
    methods = options.methods or [*METHODS, *(PEERS[:1] if find_spec("syne_tune") else [])]
    methods = ["random", *(method for method in methods if method != "random")]
    options.output.mkdir(parents=True, exist_ok=True)
    searches = Searches(options.output / "searches.jsonl")
    jobs = itertools.product(options.tables, methods, range(options.seeds), [options.workers])
    searches.complete([Job(*job) for job in jobs], options.processes)
    results = {name: evaluate(name, methods, options.seeds, options.workers, searches) for name in options.tables}
    packages = ["mtlsearch", "optuna", "numpy", *(["syne-tune"] if find_spec("syne_tune") else [])]
    about = {
        "seeds": options.seeds,
        "workers": options.workers,
        "hardware": describe()["hardware"],
        "packages": {package: metadata.version(package) for package in packages},
    }
    text = "\n".join(markdown(name, result) for name, result in results.items())
    (options.output / "results.json").write_text(
        json.dumps({"about": about, "tables": {name: summary(result) for name, result in results.items()}}, indent=1)
        + "\n"
    )
    (options.output / "table.md").write_text(text)
    figure(results, options.output / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
