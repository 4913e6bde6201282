"""What all branches share: the stem that takes images to a map of a quarter of their side."""

from __future__ import annotations

from torch import nn

from mtlsearch.faces.cascade.residual import residual

#: the map's side is the image's over this
STRIDE = 4


class Stem(nn.Sequential):
    """Images (N, 3, S, S) -> (N, channels, S/4, S/4): 256² -> 64².

    Newell's: a 7 × 7 convolution of stride 2, a residual module, max pooling, two residual modules. Zhang 2018 says
    "several convolutional and max pooling layers" and no more.

    width: channels of the first convolution, 64 of 256 in Newell.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            residual(width, channels // 2),
            nn.MaxPool2d(2),
            residual(channels // 2, channels // 2),
            residual(channels // 2, channels),
        )
