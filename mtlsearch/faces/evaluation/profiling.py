"""What only a face system can be asked about its cost: parameters that its predictions depend on, images a second."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from mtlsearch.faces.systems import System
from mtlsearch.training.costs import seconds_per_call


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


def images_per_second(model: System, images: torch.Tensor) -> float:
    """How many images (N, 3, S, S) a second the network takes on their device, N at a time; decoding included."""

    def call() -> None:
        with torch.inference_mode():
            model.decode(model(images))
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return len(images) / seconds_per_call(call)
