"""Step time and peak memory of every way to combine task gradients: python benchmarks/gradients.py [--quick]

A step is a forward, the backwards and whatever fills `.grad`; not the update. The variants take turns in every round,
each once to warm the caches and once measured, and medians are compared, so that drift of the machine falls on all
alike. Memory is the peak of what is allocated from a variant's construction to the end of its second step, by
allocation events, parameters and inputs apart. Both are given as ratios to a plain step (a backward of the sum of the
losses) of the same run.

TorchJD, where installed, is measured by each of its routes to PCGrad: `mtl_backward` with all tasks in one vectorised
pass ("vmap"), task by task ("loop"), and its autogram engine, which weighs the heads' gradients as well.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mtlsearch import MultiTaskOptimizer

EVERY = 5


class MultiHead(nn.Module):
    """A trunk with one linear head for each task."""

    def __init__(self, trunk: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(tasks))

    def losses(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.trunk(inputs)
        return features, [(head(features) - i % 3).square().mean() for i, head in enumerate(self.heads)]


def mlp(widths: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))


class SmallViT(nn.Module):
    """Six blocks of width 192 over 64 patches of 8 × 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 8, 8)
        self.positions = nn.Parameter(torch.randn(1, 64, 192) * 0.02)
        block = nn.TransformerEncoderLayer(
            192, 3, 768, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.patches(images).flatten(2).transpose(1, 2) + self.positions).mean(1)


def mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    model = mobilenet_v3_small()
    return nn.Sequential(model.features, model.avgpool, nn.Flatten())


# name -> (trunk, its output's width, shape of one input)
MODELS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    "MLP 3072-768-768": (lambda: mlp((3072, 768, 768)), 768, (3072,)),
    "MLP 1024-1024-1024-1024": (lambda: mlp((1024, 1024, 1024, 1024)), 1024, (1024,)),
    "small ViT, 64²": (SmallViT, 192, (3, 64, 64)),
    "MobileNetV3-Small, 64²": (mobilenet, 576, (3, 64, 64)),
}
# (model, batch, tasks)
TABLE = [
    *((name, batch, 3) for name in list(MODELS)[:2] for batch in (32, 64, 256, 1024)),
    ("small ViT, 64²", 32, 3),
    ("MobileNetV3-Small, 64²", 32, 3),
    *((name, 64 if "MLP" in name else 32, tasks) for name in MODELS for tasks in (2, 5, 10)),
]
QUICK = [("MLP 3072-768-768", 32, 3), ("MLP 3072-768-768", 64, 3), *TABLE[8:10]]


@dataclass
class Row:
    """One variant on one model: seconds and bytes a step, and their ratios to a plain step."""

    model: str
    batch: int
    tasks: int
    variant: str
    seconds: float
    megabytes: float
    time: float
    memory: float
    note: str = ""


Step = Callable[[], None]


def variants(model: MultiHead, inputs: Tensor) -> dict[str, Callable[[], Step]]:
    """How to make each variant's step. A step ends with what it computed released, as zero_grad would."""
    heads = [list(head.parameters()) for head in model.heads]
    trunk = list(model.trunk.parameters())

    def released(step: Callable[[], object]) -> Step:
        def run() -> None:
            step()
            model.zero_grad()

        return run

    def bare() -> None:
        _, losses = model.losses(inputs)
        for i, loss in enumerate(losses):
            torch.autograd.grad(loss, trunk + heads[i], retain_graph=i < len(losses) - 1)

    def ours(strategy: str = "pcgrad", **options: object) -> Callable[[], Step]:
        def make() -> Step:
            tasks = [str(i) for i in range(len(heads))]
            sgd = torch.optim.SGD(model.parameters(), lr=0.0)
            optimizer = MultiTaskOptimizer(sgd, strategy, tasks, **options)  # type: ignore[arg-type]
            return released(lambda: optimizer.backward(model.losses(inputs)[1]))

        return make

    return {
        "plain step": lambda: released(lambda: sum(model.losses(inputs)[1]).backward()),
        "forward + T autograd.grad": lambda: bare,
        "rows": ours(engine="rows"),
        "ghost": ours(engine="ghost"),
        "auto": ours(),
        f"update_every={EVERY}": ours(update_every=EVERY),
        "feature": ours(engine="feature"),
        "uncertainty": ours("uncertainty"),
        **torchjd_variants(model, inputs, released),
    }


def torchjd_variants(
    model: MultiHead, inputs: Tensor, released: Callable[[Callable[[], object]], Step]
) -> dict[str, Callable[[], Step]]:
    try:
        from torchjd.aggregation import PCGrad as Aggregator
        from torchjd.aggregation import PCGradWeighting
        from torchjd.autogram import Engine
        from torchjd.autojac import jac_to_grad, mtl_backward
    except ImportError:
        return {}

    def rows(chunk: int | None) -> Callable[[], Step]:
        def make() -> Step:
            aggregator = Aggregator()

            def step() -> None:
                features, losses = model.losses(inputs)
                mtl_backward(losses, features, parallel_chunk_size=chunk, retain_graph=False)
                jac_to_grad(model.trunk.parameters(), aggregator)

            return released(step)

        return make

    twin = copy.deepcopy(model)  # the engine's hooks stay on the modules and raise when another variant runs them

    @functools.cache
    def engine() -> Engine:
        return Engine(twin.trunk, batch_dim=None)

    def autogram() -> Step:
        hooked, weighting = engine(), PCGradWeighting()

        def step() -> None:
            losses = torch.stack(twin.losses(inputs)[1])
            losses.backward(weighting(hooked.compute_gramian(losses)))
            twin.zero_grad()

        return step

    return {"torchjd vmap": rows(None), "torchjd loop": rows(1), "torchjd autogram": autogram}


def device_synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(step: Step, device: torch.device, repeat: int) -> float:
    device_synchronize(device)
    start = time.perf_counter()
    for _ in range(repeat):
        step()
    device_synchronize(device)
    return (time.perf_counter() - start) / repeat


def peak_memory(make: Callable[[], Step], device: torch.device) -> int:
    """The most bytes allocated at once, of what a variant allocates from its construction through two steps."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step = make()
        step(), step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make()
        step(), step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(name: str, batch: int, tasks: int, rounds: int, device: torch.device) -> list[Row]:
    torch.manual_seed(0)
    build, width, shape = MODELS[name]
    model = MultiHead(build(), width, tasks).to(device)
    inputs = torch.randn(batch, *shape, device=device)
    steps: dict[str, Step] = {}
    notes: dict[str, str] = {}
    memory: dict[str, int] = {}
    for variant, make in variants(model, inputs).items():
        try:
            memory[variant] = peak_memory(make, device)
            steps[variant] = make()
            steps[variant]()
        except Exception as error:  # a peer that cannot do this model says so in the table
            steps.pop(variant, None)
            notes[variant] = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
            model.zero_grad()
            for parameter in model.parameters():
                if hasattr(parameter, "jac"):
                    del parameter.jac
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant, step in steps.items():
            repeat = EVERY if variant.startswith("update_every") else 1
            timed(step, device, repeat)
            seconds[variant].append(timed(step, device, repeat))
    median = {variant: statistics.median(values) for variant, values in seconds.items()}
    plain_time, plain_memory = median["plain step"], memory["plain step"]
    rows = [
        Row(name, batch, tasks, v, median[v], memory[v] / 1e6, median[v] / plain_time, memory[v] / plain_memory)
        for v in steps
    ]
    return rows + [Row(name, batch, tasks, v, *[float("nan")] * 4, note) for v, note in notes.items()]


def show(rows: list[Row]) -> None:
    """One Markdown table for a model, batch and number of tasks."""
    first, bare = rows[0], next(row for row in rows if row.variant.startswith("forward"))
    print(f"\n### {first.model}, batch {first.batch}, T = {first.tasks}\n")
    print("| variant | ms | × plain | × forward + T grad | MB | × plain |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        if row.note:
            print(f"| {row.variant} | {row.note} | | | | |")
            continue
        ratios = f"{row.time:.2f} | {row.seconds / bare.seconds:.2f}"
        print(f"| {row.variant} | {1e3 * row.seconds:.1f} | {ratios} | {row.megabytes:.0f} | {row.memory:.2f} |")


def strategies_table(rounds: int) -> None:
    """Microseconds that each strategy takes for one combination, rows and backwards apart."""
    from mtlsearch import get_strategy, strategies
    from mtlsearch.gradients import GramianStrategy, LossStrategy, Step

    print("| strategy | µs, T = 3 | µs, T = 10 |\n|---|---:|---:|")
    for name in strategies():
        found = []
        for tasks in (3, 10):
            strategy = get_strategy(name)
            names = tuple(str(i) for i in range(tasks))
            strategy.setup(names, torch.zeros(()))
            torch.manual_seed(0)
            rows = torch.randn(tasks, 1000)
            rows -= 0.8 * (rows.sum(0) - rows)
            losses = torch.rand(tasks) + 0.5
            step = Step(names=names, tasks=tuple(range(tasks)), losses=losses)
            if isinstance(strategy, LossStrategy):
                run = functools.partial(strategy.weigh, losses)
            elif isinstance(strategy, GramianStrategy):
                run = functools.partial(strategy.weigh, (rows @ rows.T).double())
            else:
                found.append("T·P")
                continue
            turns = [functools.partial(run, replace(step, index=index)) for index in range(20 * rounds)]
            times = [timed(turn, torch.device("cpu"), 1) for turn in turns]
            found.append(f"{1e6 * statistics.median(times):.0f}")
        print(f"| `{name}` | {' | '.join(found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four rows of the table, in about two minutes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--strategies", action="store_true", help="the strategies' own cost instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.strategies:
        strategies_table(options.rounds)
        return
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(
        f"{where}, threads {options.threads}, torch {torch.__version__}, medians of {options.rounds} interleaved rounds"
    )
    rows: list[Row] = []
    for name, batch, tasks in QUICK if options.quick else TABLE:
        found = measure(name, batch, tasks, options.rounds, device)
        show(found)
        rows += found
        if options.json:
            options.json.write_text(json.dumps({"where": where, "rows": [asdict(row) for row in rows]}, indent=1))


def processor() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].partition(":")[2].strip() if models else platform.processor()


if __name__ == "__main__":
    main()
