"""What a search of thousands of trials costs beside the training, part by part, against the number of trials.

    python -m benchmarks.search_scale --output results/reference/search_scale     # half an hour on two cores
    python -m benchmarks.search_scale --trials 20                                 # to see it work

The trials are simulated: their epochs cost nothing (benchmarks/search_cost/simulated.py). All else is real: Ray Tune
with two processes, the sampler (TPE on two objectives, four parameters and a conditional fifth), early stopping,
journal, records, checkpoints, and the tracker on sqlite. Clocks are put around the parts, and the driver's resident
memory is read when a trial ends. Each number of trials has a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.search_cost.machine import describe_machine

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "benchmarks" / "search_cost" / "simulated.yaml"

SAMPLER, RULE, JOURNAL, RECORDS, LEADERBOARD = "sampler", "early stopping", "journal", "records", "leaderboard"
QUEUEING, WRITING = "tracker, queueing", "tracker, in its own thread"
SNAPSHOTS, RAY, WAITING, STEP = (
    "Ray's snapshots",
    "Ray's loop and the rest",
    "waiting for trials",
    "a step of Ray's loop",
)
#: what happens inside of Ray's loop, in the driver's main thread
INSIDE = (SAMPLER, RULE, JOURNAL, RECORDS, LEADERBOARD, QUEUEING, SNAPSHOTS, WAITING)
PARTS = (*INSIDE[:-1], RAY, WRITING)
#: of the trials, over which the cost of the first and of the last is averaged
_SHARE = 5


class Clocks:
    """Seconds by part, in all, and what they and the memory were when each trial ended. They run within the scope."""

    def __init__(self, scope: ExitStack) -> None:
        self._scope = scope
        self._seconds: dict[str, float] = defaultdict(float)
        self._written = 0
        self.samples: list[dict[str, float]] = []

    def on(self, owner: Any, name: str, part: str) -> None:
        """Adds the time that `owner.name` takes to `part`."""
        self.put(owner, name, self.timed(getattr(owner, name), part))

    def put(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        """`function` in the place of `owner.name`, to the end of the scope."""
        self._scope.enter_context(patch.object(owner, name, function))

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def clocked(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._seconds[part] += time.perf_counter() - started

        return clocked

    def tracked(self) -> None:
        self._written += 1

    def sample(self) -> None:
        inside = sum(self._seconds[part] for part in INSIDE)
        parts = {**self._seconds, RAY: self._seconds[STEP] - inside}
        sample = {part: round(parts.get(part, 0.0), 6) for part in PARTS}
        sample["tracked"] = self._written
        self.samples.append({**sample, "elapsed": round(time.perf_counter(), 3), "rss_mb": round(resident_mb(), 1)})


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def simulate(trials: int, folder: Path) -> list[dict[str, float]]:
    """One study; a sample for each trial that ended."""
    import ray
    from ray.tune.execution.tune_controller import TuneController
    from rich.console import Console

    from mtlsearch.search import load_plan, recorder, run_search
    from mtlsearch.search.early_stopping import RuleScheduler
    from mtlsearch.search.executors.resources import Demand
    from mtlsearch.search.sampling.searcher import StudySearcher
    from mtlsearch.search.study.journal import Journal
    from mtlsearch.search.study.study import Study
    from mtlsearch.search.tracked import TrackedStudy
    from mtlsearch.tracking import TrackedRun
    from mtlsearch.tracking.writer import Writer

    def put_and_timed(self: Writer, write: Callable[[], object]) -> None:
        put(self, clocks.timed(write, WRITING))

    def run_ended(self: TrackedRun, status: str) -> None:
        end_run(self, status)
        self._tracker.write(lambda _: clocks.tracked())

    def trial_ended(self: Study, *arguments: Any, **options: Any) -> None:
        end_trial(self, *arguments, **options)
        clocks.sample()

    put, end_run, end_trial = Writer.put, TrackedRun.end, Study.end_trial
    with ExitStack() as scope:
        clocks = Clocks(scope)
        for owner, name, part in (
            (StudySearcher, "_ask", SAMPLER),
            (StudySearcher, "on_trial_complete", SAMPLER),
            (RuleScheduler, "on_trial_result", RULE),
            (Journal, "append", JOURNAL),
            (recorder, "write_record", RECORDS),
            (Study, "_write_leaderboard", LEADERBOARD),
            (TrackedStudy, "trial_registered", QUEUEING),
            (TrackedStudy, "epoch_ended", QUEUEING),
            (TrackedStudy, "trial_ended", QUEUEING),
            (TuneController, "checkpoint", SNAPSHOTS),
            (TuneController, "step", STEP),
            (ray, "wait", WAITING),
        ):
            clocks.on(owner, name, part)
        clocks.put(Writer, "put", put_and_timed)
        clocks.put(TrackedRun, "end", run_ended)
        clocks.put(Study, "end_trial", trial_ended)
        run_search(
            load_plan(str(SPACE), search={"num_samples": trials}),
            results=folder,
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
            name="study",
            demand=Demand(concurrent=2, cpus_per_trial=1),
            console=Console(file=io.StringIO(), width=200, markup=False),
        )
        clocks.sample()  # with what the tracker still had to write
    return clocks.samples


def rows(samples: list[dict[str, float]]) -> list[tuple[str, float, float, float]]:
    """(part, ms a trial over the first fifth, ms a trial over the last fifth, seconds in all)."""
    ended = samples[:-1]
    share = max(1, len(ended) // _SHARE)

    def per_trial(part: str, first: dict[str, float], last: dict[str, float]) -> float:
        """The tracker may be behind: its time is that of the trials that it wrote meanwhile."""
        trials = last["tracked"] - first["tracked"] if part == WRITING else share
        return 1000 * (last[part] - first[part]) / max(1, trials)

    found = []
    for part in (*PARTS, "elapsed"):
        begin = ended[0], ended[share] if share < len(ended) else ended[-1]
        close = ended[-1 - share] if share < len(ended) else ended[0], ended[-1]
        total = samples[-1][part] - (ended[0][part] if part in (RAY, "elapsed") else 0)
        found.append((part, per_trial(part, *begin), per_trial(part, *close), total))
    return found


def table(trials: int, samples: list[dict[str, float]]) -> str:
    lines = [
        f"### {trials} trials\n",
        "| part | ms a trial, first fifth | ms a trial, last fifth | last ÷ first | s in all |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part, first, last, total in rows(samples):
        name = "wall" if part == "elapsed" else part
        ratio = f"{last / first:.1f}" if first else "–"
        lines.append(f"| {name} | {first:.1f} | {last:.1f} | {ratio} | {total:.1f} |")
    ended = samples[:-1]
    at = [ended[len(ended) * k // 4 - (1 if k else 0)]["rss_mb"] for k in range(5)]
    memory = ", ".join(f"{megabytes:.0f}" for megabytes in at)
    each = 1000 * (at[4] - at[1]) / (len(ended) * 3 / 4)
    return "\n".join(
        [*lines, "", f"Driver, MB at 0, ¼, ½, ¾ and all of the trials: {memory}; {each:.0f} kB a trial.", ""]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--output", type=Path, help="folder for figures.json and table.md")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a study in this process, samples to this file
    options = parser.parse_args()
    if options.one:
        options.one.write_text(json.dumps(simulate(options.trials[0], options.one.parent)))
        return
    studies: dict[int, list[dict[str, float]]] = {}
    for trials in options.trials:
        with tempfile.TemporaryDirectory(prefix="mtlsearch-scale-") as folder:
            samples = Path(folder) / "samples.json"
            command = [sys.executable, "-m", "benchmarks.search_scale", "--trials", str(trials), "--one", str(samples)]
            subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
            studies[trials] = json.loads(samples.read_text())
        print(table(trials, studies[trials]), flush=True)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        machine = describe_machine()
        text = "\n".join([f"{machine}\n", *(table(trials, samples) for trials, samples in studies.items())])
        (options.output / "table.md").write_text(text)
        kept = {trials: samples[:: max(1, trials // 100)] for trials, samples in studies.items()}
        (options.output / "figures.json").write_text(json.dumps({"machine": machine, "samples": kept}) + "\n")


if __name__ == "__main__":
    main()
