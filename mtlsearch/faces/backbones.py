"""Backbones from timm by name, as modules that give one feature map (N, C, H, W), whatever their own layout is."""

from __future__ import annotations

import difflib
import math
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mtlsearch.errors import InputError

#: what `pretrained: true` may fail with where the weights cannot be had: no network, no such file, no such weights
_DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError)
#: what a model fails with that was not made for images of this size
_SIZE_ERRORS = (AssertionError, RuntimeError, AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError)


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


def to_map(features: Tensor, channels: int, prefix_tokens: int = 0) -> Tensor | None:
    """What a timm model's `forward_features` gives as a map (N, C, H, W); None where that cannot be told.

    Maps (N, C, H, W) stay; (N, H, W, C) have their channels moved; tokens (N, L, C) lose their prefix (class and
    register tokens) and become a square, the layout of patches in every model of a square image.
    """
    if features.ndim == 4:
        if features.shape[1] == channels or features.shape[3] != channels:
            return features
        return features.permute(0, 3, 1, 2)
    if features.ndim != 3 or features.shape[2] != channels:
        return None
    for prefix in (prefix_tokens, 1):  # VOLO has a class token that it does not count
        patches = features[:, prefix:]
        side = math.isqrt(patches.shape[1])
        if side > 0 and side * side == patches.shape[1]:
            return patches.transpose(1, 2).unflatten(2, (side, side))
    return None


class Backbone(nn.Module):
    """A timm model without its classifier. `channels` is C of the map that it gives.

    The layers that timm keeps for classification only (MobileNetV3's conv_head) stay in the module and are not run, as
    in Table I of Kim 2023, which counts them. A model of a fixed input size is built for `image_size` where timm can
    (`img_size=`), position embeddings resampled.

    Raises:
        InputError: the weights cannot be had, the model does not take images of this size, or gives no map.
    """

    def __init__(self, name: str, pretrained: bool, image_size: int) -> None:
        super().__init__()
        self.model = create_backbone(name, pretrained)
        try:
            features = self._probe(image_size)
        except _SIZE_ERRORS as error:
            self.model = _create_for_size(name, pretrained, image_size, self.model, error)
            try:
                features = self._probe(image_size)
            except _SIZE_ERRORS as again:
                raise _wrong_size(name, image_size, self.model, again) from None
        self.channels = int(features.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        features = self.model.forward_features(images)
        found = self._as_map(features)
        if found is None:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"model.backbone: {self.model.default_cfg['architecture']!r} gives features {shape}, which are no map "
                "(N, C, H, W) and no square of tokens; choose another backbone (docs/backbones.md lists those that do)"
            )
        return found

    def _as_map(self, features: Any) -> Tensor | None:
        if not isinstance(features, Tensor):
            return None
        return to_map(features, self.model.num_features, getattr(self.model, "num_prefix_tokens", 0))

    def _probe(self, image_size: int) -> Tensor:
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            features = self(torch.zeros(1, 3, image_size, image_size))
        self.model.train(training)
        return features


def create_backbone(name: str, pretrained: bool, **options: Any) -> Any:
    """timm's model without its classifier; InputError where the weights cannot be had. options go to timm."""
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except _DOWNLOAD_ERRORS as error:
        if not pretrained:
            raise
        raise InputError(
            f"model.pretrained: the weights of {name!r} cannot be had here ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); set model.pretrained=false or fetch them where there is a network"
        ) from error


def _create_for_size(name: str, pretrained: bool, size: int, built: Any, error: Exception) -> Any:
    """The model for images of this side, where its constructor takes one."""
    if isinstance(error, InputError):
        raise error
    try:
        return create_backbone(name, pretrained, img_size=size)
    except (*_SIZE_ERRORS, InputError) as refused:
        raise _wrong_size(name, size, built, error if isinstance(refused, TypeError) else refused) from None


def _wrong_size(name: str, size: int, model: Any, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    made_for = model.default_cfg["input_size"][-1]
    return InputError(
        f"model.backbone: {name!r} does not take images of {size}×{size} pixels ({reason}); it is made for "
        f"{made_for}×{made_for}: set data.image_size={made_for}, or choose a backbone of any size"
    )
