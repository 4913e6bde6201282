"""Seconds and peak memory of an optimizer step of a recipe at its full size: python benchmarks/full_size.py --recipe X

A step is what the training loop does with a batch: forward, the backwards of the recipe's strategy, update. It runs on
a few rendered faces of the recipe's image size, through the recipe's augmentation, in the recipe's precision; the first
step of each batch size, which allocates the optimizer's state, is not timed, and the median of the others is given.

Memory on a CPU is the peak resident memory of the whole process, Python and libraries included (the first line of the
table); it only ever rises, so batch sizes are taken from small to large. On a GPU it is the peak that torch allocated.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time

import torch

from mtlsearch.faces.config import SyntheticData
from mtlsearch.gradients import MultiTaskOptimizer, get_strategy
from mtlsearch.training import RunConfig, load_run_config
from mtlsearch.training.environment import available_cpus, set_threads
from mtlsearch.training.problem import Problem, find_problem


def load(recipe: str, overrides: list[str], faces: int) -> RunConfig:
    """The recipe with as few rendered faces as the batches and the metrics' yaw bins need."""
    config = load_run_config(recipe, overrides)
    if isinstance(getattr(config, "data", None), SyntheticData):
        few = [f"data.train={faces}", "data.val=24", "data.test=24"]
        config = load_run_config(recipe, [*overrides, *few])
    return config


def peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in kilobytes, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def step_seconds(problem: Problem, config: RunConfig, batch: int, steps: int, device: torch.device) -> list[float]:
    """Seconds of each of so many steps after a first one, of a fresh model."""
    torch.manual_seed(0)
    model = problem.build_model().to(device).train()
    optimizer = MultiTaskOptimizer(
        config.optimizer.build(model.parameters()),
        strategy=get_strategy(config.strategy.name, **config.strategy.hyperparameters),
        tasks=problem.tasks,
        shared=problem.shared_parameters(model),
        engine=config.training.engine,
        update_every=config.training.update_every,
    )
    draws, seconds = torch.Generator().manual_seed(0), []
    for _ in range(steps + 1):
        start = time.perf_counter()
        data = problem.batch(torch.arange(batch), draws)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.training.precision == "bfloat16"):
            losses = problem.losses(model, data)
        optimizer.zero_grad()
        optimizer.backward(losses)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="zhang2018", help="a recipe's name or the path of a run config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the run config")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4], help="batch sizes")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="torch threads on a CPU")
    options = parser.parse_args()
    batches, device = sorted(options.batch), torch.device(options.device)
    set_threads(options.threads)
    config = load(options.recipe, options.set, max(batches))
    problem = find_problem(config.problem)(config)
    problem.prepare()
    problem.to(device)
    model = problem.build_model()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shared = sum(parameter.numel() for parameter in problem.shared_parameters(model) or [])
    del model
    precision, strategy = config.training.precision, config.strategy.name
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} CPU threads"
    print(f"{options.recipe}: {parameters:,} parameters, {shared:,} of them shared; {strategy}, {precision}, {where}\n")
    print("| batch | s / step | peak memory, GB |\n| ---: | ---: | ---: |")
    print(f"| before | | {peak_memory(device) / 1e9:.2f} |")
    for batch in batches:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = statistics.median(step_seconds(problem, config, batch, options.steps, device))
        print(f"| {batch} | {seconds:.3g} | {peak_memory(device) / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
