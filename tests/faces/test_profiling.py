"""MACs against counts by hand; active parameters against layers that are known to be idle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtlsearch.faces.backbones import Backbone
from mtlsearch.faces.profiling import active_parameter_count, multiply_accumulates, parameter_count

SIDE = 16


class _Attention(nn.Module):
    """Two heads of self-attention over the image's 64 patches of 2×2, 12 numbers each."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = nn.functional.pixel_unshuffle(images, SIDE // 8).flatten(2).mT.unflatten(2, (2, 6)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


CASES = {
    # outputs × kernel × input channels of a group
    "conv": (nn.Conv2d(3, 8, 3, stride=2, padding=1), 8 * 8 * 8 * 3 * 3 * 3),
    "depthwise": (nn.Conv2d(3, 3, 5, padding=2, groups=3), 16 * 16 * 3 * 5 * 5),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 10)), 3 * SIDE**2 * 10),
    # q·kᵀ and the weighted sum of v: heads × tokens² × width, twice
    "attention": (_Attention(), 2 * (2 * 64 * 64 * 6)),
    "norms and activations": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), 0),
}


@pytest.mark.parametrize(("model", "expected"), CASES.values(), ids=CASES.keys())
def test_macs_are_those_of_a_count_by_hand(model: nn.Module, expected: int) -> None:
    images = torch.randn(1, 3, SIDE, SIDE)
    assert multiply_accumulates(model.eval(), images) == expected
    assert multiply_accumulates(model, images.expand(4, -1, -1, -1)) == 4 * expected


class _PartlyIdle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(3, 2, 1)
        self.frozen = nn.Conv2d(2, 2, 1).requires_grad_(False)
        self.cut = nn.Conv2d(2, 5, 1)
        self.idle = nn.Linear(100, 100)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.used(images)
        return {"map": self.frozen(features), "pooled": features.mean((2, 3)), "shape": self.cut(features).detach()}


def test_active_parameters_are_those_that_an_output_depends_on() -> None:
    model = _PartlyIdle()
    assert active_parameter_count(model, torch.zeros(1, 3, 4, 4)) == (3 * 2 + 2) + (2 * 2 + 2)
    assert not model.frozen.weight.requires_grad, "what was frozen is frozen again"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_classifier_convolution_of_mobilenetv3_is_counted_and_not_active() -> None:
    model = Backbone("mobilenetv3_small_050", False, 64).eval()
    idle = sum(parameter.numel() for parameter in model.model.conv_head.parameters())
    with torch.inference_mode():
        active = active_parameter_count(model, torch.zeros(1, 3, 64, 64))
    assert idle > 100_000
    assert active == parameter_count(model) - idle
