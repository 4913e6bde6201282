"""What a search costs beside the training: the whole command against a plain Optuna script of the same trainings.

    python -m benchmarks.search_overhead                                       # five minutes on two quiet cores
    python -m benchmarks.search_overhead --trials 2 --rounds 1 --epochs 1      # to see it work
    python -m benchmarks.search_overhead --part ray_train --trials 6 --epochs 1   # half a minute: worker groups

16 trials of about two seconds of training each, two processes, one thread a trial: `python -m mtlsearch.tune` with its
tracker, a new database each time; benchmarks/search_cost/plain_optuna.py with the imports of the command, as the
comparison is defined, and with only what it needs itself. They take turns, and medians over the rounds are given, of
ratios too: a machine that does other work slows all three, and the load at the start of each run is kept. Such work
changes the seconds of CPU that a run takes much less than its wall time.

The trials' own process notes when a training begins and ends (benchmarks/search_cost/waves.py), so that the time
between two trainings of one process is all that a search does between them: scoring, record, tracker, sampler, Ray.
The part ray_train measures trials of one worker under that executor, one at a time, by the notes of their group.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import optuna

from benchmarks.search_cost import group_trials
from benchmarks.search_cost.machine import describe_machine
from benchmarks.search_cost.notes import VARIABLE, Note, read_notes
from benchmarks.search_cost.waves import BEGUN, SCORED

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks" / "search_cost"
TUNE = "mtlsearch.tune"
SAME_IMPORTS, LEAN = "plain Optuna, the same imports", "plain Optuna, its own imports"
GROUPS = "mtlsearch.tune --executor ray_train"
VARIANTS = (TUNE, SAME_IMPORTS, LEAN)


@dataclass(frozen=True)
class Options:
    trials: int
    processes: int
    epochs: int | None

    @property
    def overrides(self) -> list[str]:
        return [] if self.epochs is None else ["--set", f"training.epochs={self.epochs}"]


@dataclass(frozen=True)
class Run:
    """One run of one variant, in seconds."""

    variant: str
    wall: float
    first: float
    """from the start of the command to the first training"""
    training: float
    """mean of a trial, from its first batch to its last score"""
    gaps: list[float]
    """from the end of a training to the beginning of the next in the same process"""
    last: float
    """from the end of the last training to the end of the command"""
    cpu: float
    """seconds of CPU of all processes but Ray's two agents, which nobody waits for: 1.5 s more"""
    load: float
    """of the machine before it began, averaged over a minute"""


def measured(variant: str, commands: list[list[str]], folder: Path) -> tuple[Run, list[Note], float]:
    """Runs the commands side by side; the notes and when it all began come with the figures."""
    notes = folder / "notes"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: str(notes)}
    load = os.getloadavg()[0]
    started = time.time()
    with (folder / "screen").open("w") as screen:
        output = {"stdout": screen, "stderr": subprocess.STDOUT}
        running = [
            # a session each, as from terminals of their own: Linux shares out the CPU by sessions where it groups them
            subprocess.Popen([sys.executable, *one], cwd=ROOT, env=environment, start_new_session=True, **output)
            for one in commands
        ]
        usage = {}
        for process in running:
            _, status, usage[process.pid] = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if any(process.returncode for process in running):
        sys.exit(f"{variant} failed:\n{(folder / 'screen').read_text()}")
    wall = time.time() - started
    found = read_notes(notes)
    trainings = trainings_of(found)
    last = max(end for own in trainings.values() for _, end in own)
    waited = sum(own.ru_utime + own.ru_stime for own in usage.values())
    trained = {one.process: one.cpu for one in found if one.process in trainings and one.process not in usage}
    return (
        Run(
            variant=variant,
            wall=wall,
            first=min(own[0][0] for own in trainings.values()) - started,
            training=fmean(end - begun for own in trainings.values() for begun, end in own),
            gaps=[later[0] - earlier[1] for own in trainings.values() for earlier, later in pairwise(own)],
            last=started + wall - last,
            cpu=waited + sum(trained.values()),
            load=load,
        ),
        found,
        started,
    )


def trainings_of(notes: list[Note]) -> dict[int, list[tuple[float, float]]]:
    """Each process's trainings in order: (first batch, last score)."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for one in notes:
        if one.what == BEGUN:
            found[one.process].append((one.when, one.when))
        elif one.what == SCORED:
            found[one.process][-1] = (found[one.process][-1][0], one.when)
    return dict(found)


def tune(options: Options, folder: Path, staged: bool = False) -> tuple[Run, list[Note], float]:
    """The command; staged: with notes of its stages."""
    module = "benchmarks.search_cost.staged_tune" if staged else "mtlsearch.tune"
    command = [
        "-m", module, *_search(options, folder), "--cpus-per-trial", "1",
        "--max-concurrent-trials", str(options.processes),
    ]  # fmt: skip
    return measured(TUNE, [command], folder)


def tune_groups(options: Options, folder: Path) -> tuple[Run, list[Note], float]:
    """The command with worker groups of one worker, one at a time, and notes of their stages."""
    command = [
        "-m", "benchmarks.search_cost.staged_groups", *_search(options, folder), "--executor", "ray_train",
        "--max-concurrent-trials", "1",
    ]  # fmt: skip
    return measured(GROUPS, [command], folder)


def _search(options: Options, folder: Path) -> list[str]:
    return [
        "--space", str(HERE / "waves.yaml"), "--num-samples", str(options.trials), *options.overrides,
        "--results", str(folder / "results"), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", "--name", "study",
        "--address", "local",
    ]  # fmt: skip


def plain(options: Options, folder: Path, variant: str) -> tuple[Run, list[Note], float]:
    storage = f"sqlite:///{folder / 'optuna.db'}"
    optuna.storages.RDBStorage(storage)  # its tables, for which processes that start at once would race
    command = [
        "-m", "benchmarks.search_cost.plain_optuna", "--storage", storage, "--folder", str(folder),
        "--trials", str(options.trials // options.processes), *options.overrides,
        *(["--imports"] if variant == SAME_IMPORTS else []),
    ]  # fmt: skip
    return measured(variant, [command] * options.processes, folder)


def stages_of(notes: list[Note], started: float) -> list[tuple[str, float]]:
    """When each stage of the command ended for the first time, in seconds after its start, in order."""
    first: dict[str, float] = {}
    last = {one.what: one.when for one in notes}
    for one in notes:
        first.setdefault(one.what, one.when)
    first[SCORED], name = last[SCORED], "last training ends"
    named = [(name if what == SCORED else what, when - started) for what, when in first.items()]
    return sorted(named, key=lambda stage: stage[1])


def summary(runs: list[Run]) -> str:
    """Medians over the rounds, as a Markdown table, and those of the ratios of a round's walls."""
    lines = [
        "| | wall s | s to the first training | s of a training | s between trainings | s after the last | CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    walls: dict[str, list[float]] = {}
    for variant in VARIANTS:
        own = [run for run in runs if run.variant == variant]
        walls[variant] = [run.wall for run in own]
        gaps = [gap for run in own for gap in run.gaps]
        figures = [
            f"{median(walls[variant]):.1f}",
            f"{median(run.first for run in own):.1f}",
            f"{median(run.training for run in own):.2f}",
            f"{median(gaps):.3f}" if gaps else "–",
            f"{median(run.last for run in own):.1f}",
            f"{median(run.cpu for run in own):.0f}",
        ]
        lines.append(f"| {variant} | {' | '.join(figures)} |")
    ratios = []
    for other in (SAME_IMPORTS, LEAN):
        each = [one / another for one, another in zip(walls[TUNE], walls[other])]
        ratios.append(f"{median(each):.2f} × {other} ({min(each):.2f} to {max(each):.2f})")
    return "\n".join([*lines, "", f"Wall of {TUNE}, round by round: {'; '.join(ratios)}.", ""])


def stages_table(stages: list[tuple[str, float]]) -> str:
    lines = ["| stage ends | s after the start |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {what} | {when:.1f} |" for what, when in stages), ""])


def measure_groups(options: Options, output: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="mtlsearch-overhead-") as scratch:
        run, notes, _ = tune_groups(options, Path(scratch))
    machine = describe_machine()
    text = f"{machine}, load {run.load:.1f} before\n\n{group_trials.table(notes)}"
    print(text)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "ray_train.md").write_text(text)
        content = {"machine": machine, "run": asdict(run), "trials": group_trials.parts_of(notes)}
        (output / "ray_train.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("plain", "ray_train"), default="plain", help="what it is compared with")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="in the place of 6")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="folder for figures.json and table.md")
    given = parser.parse_args()
    if given.part == "ray_train":
        measure_groups(Options(given.trials, 1, given.epochs), given.output)
        return
    if given.trials % given.processes:
        sys.exit("--trials must be a multiple of --processes: the plain script shares them out beforehand")
    options = Options(given.trials, given.processes, given.epochs)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="mtlsearch-overhead-") as scratch:
        for number in range(given.rounds):
            for variant in VARIANTS:
                folder = Path(tempfile.mkdtemp(dir=scratch))
                run, _, _ = tune(options, folder) if variant == TUNE else plain(options, folder, variant)
                runs.append(run)
                print(
                    f"round {number + 1}: {variant}: {run.wall:.1f} s, {run.cpu:.1f} s of CPU, load {run.load:.1f}",
                    flush=True,
                )
        _, notes, started = tune(options, Path(tempfile.mkdtemp(dir=scratch)), staged=True)
    stages = stages_of(notes, started)
    machine = describe_machine()
    text = f"{machine}, {given.rounds} rounds\n\n{summary(runs)}\n{stages_table(stages)}"
    print(f"\n{text}")
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "table.md").write_text(text)
        content = {"machine": machine, "runs": [asdict(run) for run in runs], "stages": dict(stages)}
        (given.output / "figures.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
