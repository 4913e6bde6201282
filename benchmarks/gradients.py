"""Step time of the gradient engines, as ratios to a plain step: python benchmarks/gradients.py

Every variant runs in turn within each round, on one thread, and the medians are compared, so that drift of
the machine falls on all alike. A step is a forward, the backwards and what fills `.grad`; not the update.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtlsearch import PCGrad


class MultiHead(nn.Module):
    """A trunk with one linear head for each task."""

    def __init__(self, trunk: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(tasks))

    def losses(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs)
        return [head(features).square().mean() for head in self.heads]


def mlp() -> tuple[nn.Module, int, Tensor]:
    layers = [layer for _ in range(3) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers), 1024, torch.randn(64, 1024)


def convnet() -> tuple[nn.Module, int, Tensor]:
    widths = (3, 32, 64, 128, 256)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Conv2d(fan_in, fan_out, 3, 2, 1), nn.BatchNorm2d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 256, torch.randn(16, 3, 64, 64)


def steps(model: MultiHead, inputs: Tensor) -> dict[str, Callable[[], None]]:
    """The variants, by name. Each ends with what it computed released, as zero_grad would."""
    optimizer = PCGrad(torch.optim.SGD(model.parameters(), lr=0.0))
    trunk, heads = list(model.trunk.parameters()), [list(head.parameters()) for head in model.heads]

    def plain() -> None:
        sum(model.losses(inputs)).backward()
        optimizer.zero_grad()

    def bare() -> None:
        losses = model.losses(inputs)
        for i, loss in enumerate(losses):
            torch.autograd.grad(loss, trunk + heads[i], retain_graph=i < len(losses) - 1)

    def bare_kept() -> None:
        losses = model.losses(inputs)
        kept = [torch.autograd.grad(loss, trunk + heads[i], retain_graph=True) for i, loss in enumerate(losses)]
        del kept

    def rows() -> None:
        optimizer.backward(model.losses(inputs))
        optimizer.zero_grad()

    return {
        "plain step": plain,
        "forward + T autograd.grad": bare,
        "the same, all T gradients kept": bare_kept,
        "PCGrad, rows engine": rows,
    }


def measure(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds by variant, of interleaved runs after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 2):
        for name, step in variants.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for build in (mlp, convnet):
        trunk, width, inputs = build()
        variants = steps(MultiHead(trunk, width, options.tasks), inputs)
        count = sum(parameter.numel() for parameter in trunk.parameters())
        print(
            f"\n{build.__name__}: {count:,} trunk parameters, input {tuple(inputs.shape)}, "
            f"T = {options.tasks}, threads {options.threads}, torch {torch.__version__}"
        )
        medians = measure(variants, options.rounds)
        plain, bare = medians["plain step"], medians["forward + T autograd.grad"]
        for name, median in medians.items():
            ratios = f"{median / plain:5.2f} × plain  {median / bare:5.2f} × bare"
            print(f"  {name:32}{1e3 * median:9.2f} ms  {ratios}")


if __name__ == "__main__":
    main()
