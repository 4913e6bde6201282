"""What a network costs: its parameters, the multiply–accumulates of one image, how fast this machine runs it."""

from __future__ import annotations

import copy
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
#: that a measurement may take; a large network needs minutes for all its runs on a CPU
_SECONDS = 10.0


def parameter_count(model: nn.Module) -> int:
    """All numbers that training can change, used or not: what the papers count."""
    return sum(parameter.numel() for parameter in model.parameters())


def active_parameter_count(model: nn.Module, images: torch.Tensor) -> int:
    """The numbers of those parameter tensors that the predictions depend on: the gradient of the predictions, summed
    with random weights, is not zero all over them for these images.

    images (N, 3, S, S): random ones will do. What a `System` predicts is what it decodes (landmarks, angles, dense
    points), what another module predicts is its output. So neither layers that are never run count (MobileNetV3's
    conv_head, kept for classification), nor those that only training looks at (the pose of the cascade's first blocks).
    """
    with torch.inference_mode(False), torch.enable_grad():
        model = copy.deepcopy(model).requires_grad_(True)
        parameters = list(model.parameters())
        draw = torch.Generator().manual_seed(0)
        for parameter in parameters:
            # a tensor that starts at zero (a residual branch's last scale) would hide all that lies before it
            if not parameter.any():
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw).to(parameter)
        output = model(images.clone())
        if isinstance(model, System):
            prediction = model.decode(output)
            output = (prediction.landmarks, prediction.angles, prediction.dense)
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        weights = [torch.randn(leaf.shape, generator=draw).to(leaf) for leaf in leaves]
        gradients = torch.autograd.grad(leaves, parameters, weights, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(parameters, gradients) if gradient is not None and gradient.any())


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


def seconds_per_call(call: Callable[[], object], limit: float = _SECONDS) -> float:
    """The median time of a call on the CPU, in seconds: of 15 after 3 that warm up, or of as many as `limit` seconds
    allow, at least one."""
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


def images_per_second(model: System, images: torch.Tensor) -> float:
    """How many images (N, 3, S, S) a second the network takes on their device, N at a time; decoding included."""

    def call() -> None:
        with torch.inference_mode():
            model.decode(model(images))
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return len(images) / seconds_per_call(call)
