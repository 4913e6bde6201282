"""What a network costs: its parameters, the multiply–accumulates of one image, how fast this machine runs it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mtlsearch.faces.systems import System

#: runs before the clock starts, and runs that it times
_WARM, _TIMED = 3, 15


def parameter_count(model: nn.Module) -> int:
    """All numbers that training can change, used or not: what the papers count."""
    return sum(parameter.numel() for parameter in model.parameters())


def active_parameter_count(model: nn.Module, images: torch.Tensor) -> int:
    """Those parameters that the outputs depend on: the gradient of the outputs reaches them.

    Layers that a backbone keeps for classification and that are never run (MobileNetV3's conv_head) are not among them.
    images (N, 3, S, S).
    """
    parameters = list(model.parameters())
    learned = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            outputs = [leaf for leaf in tree_leaves(model(images.clone())) if isinstance(leaf, torch.Tensor)]
            total = torch.stack([output.float().sum() for output in outputs if output.requires_grad]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        for parameter, flag in zip(parameters, learned):
            parameter.requires_grad_(flag)
    return sum(parameter.numel() for parameter, gradient in zip(parameters, gradients) if gradient is not None)


def multiply_accumulates(model: nn.Module, images: torch.Tensor) -> int:
    """MACs of a forward pass over `images` (N, 3, S, S): half the FLOPs that torch's counter sees in convolutions,
    linear layers, matrix products and attention. Norms, activations and other elementwise work are not counted, as
    usual.
    """
    counter = FlopCounterMode(display=False)
    # attention as plain matrix products: the counter has no formula for some of the fused kernels
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(images)
    return counter.get_total_flops() // 2


def seconds_per_call(call: Callable[[], object]) -> float:
    """The median time of a call on the CPU, in seconds."""
    for _ in range(_WARM):
        call()
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def images_per_second(model: System, images: torch.Tensor) -> float:
    """How many images (N, 3, S, S) a second the network takes on their device, N at a time; decoding included."""

    def call() -> None:
        with torch.inference_mode():
            model.decode(model(images))
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return len(images) / seconds_per_call(call)
