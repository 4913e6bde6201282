"""What a model costs: its parameters, the multiply–accumulates of one sample, how long this machine takes for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtlsearch.training.problem import HasExample

COSTS = ("parameters", "macs", "latency_ms")

#: runs before the clock starts, and runs that it times
_WARM, _TIMED = 3, 15
#: that a measurement may take; a large network needs minutes for all its runs on a CPU
_SECONDS = 10.0


def measure_costs(problem: HasExample, names: Collection[str], device: torch.device) -> dict[str, float]:
    """Those of `COSTS` that `names` asks for, of the problem's untrained model and one sample.

    parameters: all that training can change; macs: see `multiply_accumulates`; latency_ms: the median time of a forward
    pass on `device`, with the threads that this process has and whatever else the machine does.
    """
    model, sample = problem.example()
    model = model.eval()
    measured: dict[str, float] = {}
    if "parameters" in names:
        measured["parameters"] = float(parameter_count(model))
    if "macs" in names:
        measured["macs"] = float(multiply_accumulates(model, *sample))
    if "latency_ms" in names:
        model, sample = model.to(device), tuple(one.to(device) for one in sample)

        def call() -> None:
            with torch.inference_mode():
                model(*sample)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        measured["latency_ms"] = 1000 * seconds_per_call(call)
    return measured


def parameter_count(model: nn.Module) -> int:
    """All numbers that training can change, used or not: what the papers count."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_accumulates(model: nn.Module, *inputs: Any) -> int:
    """MACs of a forward pass over `inputs`: half the FLOPs that torch's counter sees in convolutions, linear layers,
    matrix products and attention. Norms, activations and other elementwise work are not counted, as usual.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes a second

    counter = FlopCounterMode(display=False)
    # attention as plain matrix products: the counter has no formula for some of the fused kernels
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*inputs)
    return counter.get_total_flops() // 2


def seconds_per_call(call: Callable[[], object], limit: float = _SECONDS) -> float:
    """The median time of a call in seconds: of 15 after 3 that warm up, or of as many as `limit` seconds allow, at
    least one."""
    begun = time.perf_counter()
    for _ in range(_WARM):
        call()
        if time.perf_counter() - begun > limit / 4:
            break
    times: list[float] = []
    while len(times) < _TIMED and (not times or time.perf_counter() - begun < limit):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
