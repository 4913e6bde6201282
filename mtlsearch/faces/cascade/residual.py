"""The residual module of Newell et al. 2016: He's pre-activation bottleneck of half the width, from timm."""

from __future__ import annotations

from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import DownsampleConv, PreActBottleneck
from torch import nn


def residual(inputs: int, outputs: int) -> nn.Module:
    """(N, inputs, H, W) -> (N, outputs, H, W), with a 1 × 1 convolution on the way past where the widths differ."""
    return PreActBottleneck(
        inputs,
        outputs,
        bottle_ratio=0.5,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
        proj_layer=DownsampleConv if inputs != outputs else None,
    )
