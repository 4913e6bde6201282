"""What a cluster's head carries for each trial, and how fast: python -m benchmarks.scale [PART ...] [--output FOLDER]

exchange    results a second that pass from worker groups to the search, for 1, 16 and 256 trials at a time
memory      bytes of each process that a one-worker trial of ray_train has, on the head and where it trains
tracker     epochs a second that MLflow takes, in sqlite and through a server on this machine
storage     seconds until a checkpoint of 20 MB is in a folder and in an S3 server on this machine

All on this machine: a network adds its own time. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import re
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console

from benchmarks.search_cost.machine import describe_machine
from mtlsearch.search import load_plan, run_search
from mtlsearch.search.executors.inline import running_ray
from mtlsearch.search.executors.resources import Demand, plan_trials, this_machine
from mtlsearch.search.trials.exchange import Exchange
from mtlsearch.tracking import Tracker
from mtlsearch.training.storage import RemoteFolder

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "own_space.yaml"
Rows = list[tuple[str, float, str]]
"""(what, figure, unit)"""
_SECONDS = 5.0
#: an epoch's row, as a face system's has them
_ROW = {f"val/{number}": 0.5 for number in range(30)}


class Sender:
    """Stands for the first workers of many trials."""

    async def send(self, exchange: Any, trials: int, seconds: float) -> int:
        until = time.monotonic() + seconds

        async def epochs(trial: int) -> int:
            sent = 0
            while time.monotonic() < until:
                await exchange.send.remote(trial, {"epoch": float(sent), **_ROW})
                sent += 1
            await exchange.close.remote(trial)
            return sent

        return sum(await asyncio.gather(*map(epochs, range(trials))))


class Receiver:
    """Stands for the drivers of as many."""

    async def receive(self, exchange: Any, trials: int) -> None:
        async def all_of(trial: int) -> None:
            while await exchange.next.remote(trial) is not None:
                pass

        await asyncio.gather(*map(all_of, range(trials)))


def exchange(folder: Path) -> Rows:
    rows: Rows = []
    with running_ray(plan_trials(Demand(concurrent=2), 8, this_machine())):
        for trials in (1, 16, 256):
            actor: Any = ray.remote(num_cpus=0)(Exchange).remote()
            ray.get([actor.give.remote(f"group {trial}", trial, b"") for trial in range(trials)])
            sender: Any = ray.remote(num_cpus=0)(Sender).remote()
            receiver: Any = ray.remote(num_cpus=0)(Receiver).remote()
            received = receiver.receive.remote(actor, trials)
            started = time.monotonic()
            sent = ray.get(sender.send.remote(actor, trials, _SECONDS))
            ray.get(received)
            rows.append((f"{trials} trials at a time", sent / (time.monotonic() - started), "results/s"))
            for one in (actor, sender, receiver):
                ray.kill(one)
    return rows


def memory(folder: Path) -> Rows:
    """Unique bytes of each process of Ray, at their most, while two trials train one after the other."""
    most: dict[int, float] = defaultdict(float)
    titles: dict[int, str] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    title = " ".join(process.cmdline())
                    if title.startswith("ray::"):
                        titles.setdefault(process.pid, "")
                        if "IDLE" not in title:  # what it became, under the first name that it had then
                            titles[process.pid] = titles[process.pid] or re.split(r"[.( ]", title)[0]
                        most[process.pid] = max(most[process.pid], process.memory_full_info().uss)
                except psutil.Error:
                    continue

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    os.environ["PYTHONPATH"] = str(ROOT)  # the workers look for examples/ there
    settings: dict[str, Any] = {"num_samples": 2, "start_with": [], "confirm": {"seeds": 0}, "report": False}
    run_search(
        load_plan(str(SPACE), ["training.epochs=60"], {**settings, "early_stopping": "none"}),
        results=folder / "results",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        demand=Demand("ray_train", concurrent=1),
        console=Console(file=io.StringIO(), markup=False),
    )
    ended.set()
    watching.join()
    rows = [(title, most[pid] / 1e6, "MB") for pid, title in sorted(titles.items(), key=lambda one: one[1]) if title]
    return [*rows, ("this process, the search", psutil.Process().memory_full_info().uss / 1e6, "MB")]


def tracker(folder: Path) -> Rows:
    from mlflow import server
    from werkzeug.serving import make_server

    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / 'server.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (folder / "artifacts").as_uri()
    rows: Rows = []
    served = make_server("127.0.0.1", 0, server.app, threaded=True)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    for what, uri in (
        ("sqlite", f"sqlite:///{folder / 'own.db'}"),
        ("a server over sqlite", f"http://127.0.0.1:{served.port}"),
    ):
        opened = Tracker(uri, print)
        run = opened.start_run("a trial", {"kind": "trial"})
        count = 200
        started = time.perf_counter()
        for epoch in range(count):
            run.log_row(_ROW, epoch)
        assert opened.close() == 0
        rows.append((f"{what}, {len(_ROW)} metrics an epoch", count / (time.perf_counter() - started), "epochs/s"))
    served.shutdown()
    return rows


def storage(folder: Path) -> Rows:
    from moto.server import ThreadedMotoServer

    checkpoint = folder / "last.pt"
    checkpoint.write_bytes(os.urandom(20_000_000))
    os.environ.update({"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"})
    served = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    rows: Rows = []
    for what, uri in (
        ("a folder", str(folder / "there")),
        (
            "an S3 server in Python",
            f"s3://bucket/there?endpoint_override={host}:{port}&scheme=http&allow_bucket_creation=true",
        ),
    ):
        remote, seconds = RemoteFolder(uri), []
        for number in range(5):
            started = time.perf_counter()
            remote.upload(checkpoint, f"trials/{number:04d}/last.pt")
            seconds.append(time.perf_counter() - started)
        rows.append((f"20 MB to {what}", statistics.median(seconds), "s"))
    served.stop()
    return rows


PARTS: dict[str, Callable[[Path], Rows]] = {
    "exchange": exchange,
    "memory": memory,
    "tracker": tracker,
    "storage": storage,
}


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request of the servers
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; by default all")
    parser.add_argument("--output", type=Path, help="folder for table.md and figures.json")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    lines, figures = [describe_machine(), "", "| part | what | figure |", "| --- | --- | ---: |"], {}
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            figures[part] = PARTS[part](Path(folder))
        lines += [f"| {part} | {what} | {figure:.3g} {unit} |" for what, figure, unit in figures[part]]
        print("\n".join(lines[-len(figures[part]) :]), flush=True)
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "table.md").write_text("\n".join(lines) + "\n")
        where = {"where": describe_machine(), "figures": figures}
        (given.output / "figures.json").write_text(json.dumps(where, indent=1) + "\n")


if __name__ == "__main__":
    main()
