"""What a GPU gives: python -m benchmarks.gpu [recipes | engines | sharing ...] [--output FOLDER]

recipes   images/s of the training loop for the three papers' recipes, in bfloat16 and channels-last with the data on
          the device, beside the same loop fed with one batch that stays where it is: what feeding costs
engines   PCGrad's step time and peak memory by each engine, beside TorchJD where it is installed, and whether a step of
          ours waits for the device, by torch.cuda.set_sync_debug_mode
sharing   trainings an hour when 1, 2, 4 ... of them share the GPU, each a process of its own

Needs neither Ray nor MLflow. `--device cpu --quick` runs every part small, to see that it works; its figures mean
nothing for a GPU. With `--output` the tables are kept beside the figures as JSON, with the device's name.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from benchmarks import gradients
from mtlsearch.training import RunConfig, load_run_config
from mtlsearch.training.environment import available_cpus
from mtlsearch.training.loop import train
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.recipes import parse_run_config
from mtlsearch.training.rehearsal import FewSteps

RECIPES = ("kim2023", "basak2023", "zhang2018")
#: timm's name -> side of the images
TRUNKS = {"mobilevit_s": 256, "resnet50": 224}
#: what shares a GPU: quick enough that several trainings take minutes, and large enough to fill a part of one
SHARED = "kim2023"


@dataclass(frozen=True)
class Options:
    """device; quick: a few steps on tiny data; rounds: medians are taken over so many."""

    device: torch.device
    quick: bool
    rounds: int

    @property
    def name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{gradients.processor()}, {available_cpus()} CPUs"


@dataclass(frozen=True)
class Table:
    """A part's figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def __str__(self) -> str:
        lines = [f"## {self.title}\n", f"| {' | '.join(self.columns)} |", f"|{' --- |' * len(self.columns)}"]
        lines += [f"| {' | '.join(map(_shown, row))} |" for row in self.rows]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


class OneBatch(FewSteps):
    """A problem that hands out one and the same batch, already on the device."""

    _kept: Any = None

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        if self._kept is None:
            self._kept = super().batch(indices, generator)
        return self._kept


def recipe(name: str, options: Options, faces: int) -> RunConfig:
    """A paper's recipe on so many rendered faces, in bfloat16 on a GPU."""
    precision = "bfloat16" if options.device.type == "cuda" else "float32"
    overrides = [f"data.train={faces}", "data.val=64", "data.test=64", f"training.precision={precision}"]
    overrides += [f"training.device={options.device}"]
    if options.quick:
        overrides += ["data.image_size=64", "training.batch_size=4"]
    return load_run_config(name, overrides)


def images_per_second(problem: Problem, config: RunConfig, steps: int, warm: int) -> float:
    """Of the training loop itself, over `steps` steps after `warm` others."""
    device, moments = torch.device(config.training.device), []

    def on_step(done: int, total: int) -> None:
        if done in (warm, warm + steps):
            gradients.device_synchronize(device)
            moments.append(time.perf_counter())

    train(problem, config, objective=(f"val/{problem.metrics[0]}", "min"), stop_after=1, on_step=on_step)
    return steps * config.training.batch_size / (moments[1] - moments[0])


def recipes(options: Options) -> Table:
    warm, steps = (1, 2) if options.quick else (20, 100)
    rows: list[tuple[Any, ...]] = []
    for name in RECIPES:
        config = recipe(name, options, faces=64 if options.quick else 4096)
        problem = find_problem(config.problem)(config)
        problem.prepare()
        samples = (warm + steps) * config.training.batch_size
        fed: list[float] = []
        constant: list[float] = []
        for _ in range(options.rounds):  # by turns, so that drift falls on both
            fed.append(images_per_second(_problem(FewSteps, problem, samples), config, steps, warm))
            constant.append(images_per_second(_problem(OneBatch, problem, samples), config, steps, warm))
        best = max(fed), max(constant)
        rows.append((name, config.training.batch_size, config.training.precision, *best, 100 * best[0] / best[1]))
        print(f"{name}: {best[0]:,.0f} images/s, {best[1]:,.0f} with one batch", flush=True)
    return Table(
        "The training loop, fed and with one batch",
        ("recipe", "batch", "precision", "images/s", "images/s, one batch", "%"),
        rows,
    )


def _problem(kind: type[FewSteps], problem: Problem, samples: int) -> Any:
    return kind(problem, samples, None)


def trunk(name: str) -> nn.Module:
    """A network without its classifier, in channels-last."""
    return timm.create_model(name, pretrained=False, num_classes=0).to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def engines(options: Options) -> Table:
    batch = 4 if options.quick else 256
    found: list[tuple[Any, ...]] = []
    for name, size in TRUNKS.items():
        side = 64 if options.quick else size
        width = int(trunk(name).num_features)  # type: ignore[arg-type]
        gradients.MODELS[name] = functools.partial(trunk, name), width, (3, side, side)
        measured = gradients.measure(name, batch, 3, options.rounds, options.device)
        gradients.show(measured)
        for row in measured:
            waits = _waits(name, row.variant, batch, options.device)
            found.append((name, batch, row.variant, 1e3 * row.seconds, row.megabytes, row.time, row.memory, waits))
            if row.note:
                print(f"{name}, {row.variant}: {row.note}")
    return Table(
        "PCGrad over three tasks, float32",
        ("trunk", "batch", "variant", "ms", "MB", "ms / plain step's", "MB / plain step's", "waits for the device"),
        found,
    )


def _waits(name: str, variant: str, batch: int, device: torch.device) -> str:
    """Whether a warm step makes the host wait: "no", or what torch says of it. Peers are not asked."""
    if device.type != "cuda" or variant.startswith(("torchjd", "plain", "forward")):
        return "-"
    build, width, shape = gradients.MODELS[name]
    model = gradients.MultiHead(build(), width, 3).to(device)
    step = gradients.variants(model, torch.randn(batch, *shape, device=device))[variant]()
    for _ in range(gradients.EVERY + 1):
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(gradients.EVERY):
            step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"


def sharing(options: Options) -> Table:
    """All trainings of a row begin together, in processes that have imported everything and hold their data."""
    config = recipe(SHARED, options, faces=64 if options.quick else 4096)
    find_problem(config.problem)(config).prepare()
    rows: list[tuple[Any, ...]] = []
    for count in (1, 2) if options.quick else (1, 2, 4, 8):
        seconds, memory = _together(config, count, epochs=1 if options.quick else 5)
        rows.append((count, f"{1 / count:g}", seconds, 3600 * count / seconds, memory / 1e9))
        print(f"{count} at a time: {rows[-1][3]:,.0f} trainings an hour", flush=True)
    return Table(
        f"Trainings of {SHARED} that share the device ({'1 epoch' if options.quick else '5 epochs'} each)",
        ("at a time", "fraction of it each", "s for all", "trainings an hour", "GB each, as torch reserved"),
        rows,
    )


def _together(config: RunConfig, count: int, epochs: int) -> tuple[float, float]:
    """Seconds until the last of `count` trainings is done, and the most memory that one reserved, in bytes."""
    context = multiprocessing.get_context("spawn")
    ready, go, done = context.Barrier(count + 1), context.Event(), context.SimpleQueue()
    arguments = (config.tree(), epochs, max(1, available_cpus() // count), ready, go, done)
    processes = [context.Process(target=_train_beside_others, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        ready.wait(timeout=600)
        started = time.perf_counter()
        go.set()
        memory = max(_result(done, processes) for _ in processes)
        return time.perf_counter() - started, memory
    finally:
        for process in processes:
            process.join(timeout=60)
            process.kill()


def _result(done: Any, processes: list[Any]) -> float:
    while done.empty():
        if any(process.exitcode for process in processes):
            raise SystemExit("one of the trainings failed: see above")
        time.sleep(0.01)
    return float(done.get())


def _train_beside_others(tree: dict[str, Any], epochs: int, threads: int, ready: Any, go: Any, done: Any) -> None:
    torch.set_num_threads(threads)
    config = parse_run_config(tree, "the shared training")
    device = torch.device(config.training.device)
    problem: Any = find_problem(config.problem)(config)
    problem.prepare()
    train(_problem(FewSteps, problem, 4 * config.training.batch_size), config, stop_after=1)  # warms up
    ready.wait(timeout=600)
    go.wait()
    with tempfile.TemporaryDirectory() as folder:
        train(problem, config, directory=Path(folder), stop_after=epochs)
    done.put(torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0)


PARTS: dict[str, Callable[[Options], Table]] = {"recipes": recipes, "engines": engines, "sharing": sharing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; by default all")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, on tiny data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="folder for table.md and figures.json")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --quick runs every part small")
    options = Options(torch.device(given.device), given.quick, given.rounds)
    header = f"{options.name}, torch {torch.__version__}, {given.rounds} rounds{', quick' if given.quick else ''}"
    print(header, flush=True)
    tables: list[Table] = []
    for part in given.parts or PARTS:
        tables.append(PARTS[part](options))
        print(f"\n{tables[-1]}\n", flush=True)
        if given.output is not None:  # after every part, so that what is measured is kept
            given.output.mkdir(parents=True, exist_ok=True)
            given.output.joinpath("table.md").write_text("\n\n".join([f"# {header}", *map(str, tables)]) + "\n")
            figures = {"where": header, "tables": [asdict(table) for table in tables]}
            given.output.joinpath("figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
