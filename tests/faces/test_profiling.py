"""MACs against counts by hand; active parameters against layers that are known to be idle."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from mtlsearch.faces.backbones import Backbone
from mtlsearch.faces.evaluation.profiling import active_parameter_count
from mtlsearch.faces.systems import Cascade
from mtlsearch.faces.targets import FaceStatistics
from mtlsearch.training import load_run_config
from mtlsearch.training.costs import multiply_accumulates, parameter_count, seconds_per_call

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


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    model = ["model.channels=16", "model.stem=8", "model.backbone=test_resnet", "model.blocks=2"]
    config = load_run_config("zhang2018", model)
    return Cascade(config, FaceStatistics.blank(config.labels, 64, 68, 0)).eval()  # type: ignore[arg-type,attr-defined]


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
    assert active_parameter_count(model, torch.randn(1, 3, 4, 4)) == (3 * 2 + 2) + (2 * 2 + 2)
    assert not model.frozen.weight.requires_grad, "what was frozen is frozen again"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_classifier_convolution_of_mobilenetv3_is_counted_and_not_active() -> None:
    model = Backbone("mobilenetv3_small_050", False, 64).eval()
    idle = sum(parameter.numel() for parameter in model.model.conv_head.parameters())
    with torch.inference_mode():
        active = active_parameter_count(model, torch.randn(1, 3, 64, 64))
    assert idle > 100_000
    assert active == parameter_count(model) - idle


def test_what_only_training_looks_at_is_not_active(cascade: Cascade) -> None:
    """The first block's pose is trained on and stacked with the last one's; no prediction depends on it."""
    first, last = cascade.network.blocks
    idle = parameter_count(first.pose.head)
    assert idle > 0 and parameter_count(last.pose.head) == idle
    assert active_parameter_count(cascade, torch.randn(1, 3, 64, 64)) == parameter_count(cascade) - idle


def test_what_lies_before_a_layer_of_zeros_is_active() -> None:
    """As the last scale of a residual branch is when training starts."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    nn.init.zeros_(model[1].weight)
    assert active_parameter_count(model, torch.randn(1, 3, 4, 4)) == parameter_count(model)
    assert not model[1].weight.any(), "the model itself stays as it is"


def test_a_slow_network_is_not_timed_for_minutes() -> None:
    calls = []

    def call() -> None:
        calls.append(time.sleep(0.05))

    assert seconds_per_call(call, limit=0.02) == pytest.approx(0.05, rel=0.5)
    assert len(calls) == 2, "one to warm up, one that is timed"
    assert seconds_per_call(lambda: calls.append(None)) < 0.01
    assert len(calls) == 2 + 3 + 15
