"""Backbones from timm by name, as modules that give one feature map (N, C, H, W)."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import nn

from mtlsearch.errors import InputError

#: what `pretrained: true` may fail with where the weights cannot be had: no network, no such file, no such weights
_DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError)


def check_backbone(name: str) -> str:
    """`name` if timm knows it.

    Raises:
        ValueError: with the nearest names.
    """
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture) and (not tag or name in timm.list_pretrained(f"{architecture}.*")):
        return name
    near = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"; did you mean {' or '.join(repr(word) for word in near)}?" if near else ""
    raise ValueError(f"timm has no model {name!r}{hint} (timm.list_models() gives all)")


class Backbone(nn.Module):
    """A timm model without its classifier. `channels` is C of the map that it gives.

    The layers that timm keeps for classification only (MobileNetV3's conv_head) stay in the module and are not run, as
    in Table I of Kim 2023, which counts them. options go to timm, for example output_stride.
    """

    def __init__(self, name: str, pretrained: bool, image_size: int, **options: Any) -> None:
        super().__init__()
        try:
            self.model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except _DOWNLOAD_ERRORS as error:
            if not pretrained:
                raise
            raise InputError(
                f"model.pretrained: the weights of {name!r} cannot be had here ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); set model.pretrained=false or fetch them where there is a network"
            ) from error
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                features = self.forward(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"model.backbone: {name!r} does not take images of {image_size}×{image_size} pixels ({reason}); choose "
                "another data.image_size or a convolutional backbone"
            ) from None
        self.model.train(training)
        if features.ndim != 4:
            raise InputError(
                f"model.backbone: {name!r} gives features {tuple(features.shape)}, not a map (N, C, H, W); "
                "choose a convolutional or MobileViT backbone"
            )
        self.channels = int(features.shape[1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(images)  # type: ignore[operator]
