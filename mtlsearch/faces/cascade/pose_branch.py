"""The pose branch: the stages of a ResNet with three fully connected layers, and its features back at the map's size.

After four stages of ResNet-50 a 64² map is 8², and two deconvolutions would bring it to 32². The paper has two
deconvolutions and adds their result to a 64² map, so the last stage keeps its stride at 1 (timm's output_stride=16,
dilated, with the same parameters): 16², and two deconvolutions make 64².
"""

from __future__ import annotations

from typing import NamedTuple

import timm.models
from torch import Tensor, nn

from mtlsearch.faces.backbones import check_backbone, create_backbone
from mtlsearch.faces.cascade.stem import STRIDE
from mtlsearch.faces.heads.binned_pose import BinnedPoseHead, Bins
from mtlsearch.faces.heads.heatmaps import Deconvolutions

#: of the last stage against the image, and so what the image's side must be a multiple of
OUTPUT_STRIDE = 16
DECONVOLUTIONS = 2


def check_resnet(name: str) -> str:
    """`name` if it is one of timm's ResNets, whose stages the pose branch takes; ValueError otherwise."""
    check_backbone(name)
    if not timm.models.is_model_in_modules(name.partition(".")[0], ["resnet"]):
        raise ValueError(
            f"the pose branch is made of a ResNet's stages, and {name!r} is none; take resnet50 as the paper does, or "
            "another of timm.list_models(module='resnet')"
        )
    return name


class PoseFeatures(NamedTuple):
    """logits (N, 3, bins); of a branch that passes them on: upsampled and intermediate (N, channels, H, H)."""

    logits: Tensor
    upsampled: Tensor | None
    intermediate: Tensor | None


class PoseBranch(nn.Module):
    """(N, channels, H, H) -> logits of the three angles, and the branch's features at the map's size.

    A 1 × 1 convolution brings the map to the width that the ResNet's first stage takes. *Intermediate* features are
    those of the first stage, the only one that works at the map's size; in a 256-channel network with ResNet-50 they
    are added as they are, otherwise a 1 × 1 convolution matches the width.

    Args:
        backbone: a ResNet of timm's; its own stem is left out.
        upsampled: build the two deconvolutions after the last stage.
        intermediate: give the first stage's features too.
    """

    def __init__(
        self,
        channels: int,
        backbone: str,
        pretrained: bool,
        bins: Bins,
        *,
        upsampled: bool,
        intermediate: bool,
    ) -> None:
        super().__init__()
        resnet = create_backbone(backbone, pretrained, output_stride=OUTPUT_STRIDE)
        widths = [stage["num_chs"] for stage in resnet.feature_info[-4:]]
        self.entrance = nn.Conv2d(channels, resnet.bn1.num_features, 1, bias=False)
        self.first = resnet.layer1
        self.stages = nn.Sequential(resnet.layer2, resnet.layer3, resnet.layer4)
        self.head = BinnedPoseHead(widths[-1], bins)
        self.upsample = Deconvolutions(widths[-1], channels, DECONVOLUTIONS) if upsampled else None
        match = nn.Identity() if widths[0] == channels else nn.Conv2d(widths[0], channels, 1)
        self.intermediate = match if intermediate else None
        assert OUTPUT_STRIDE == STRIDE * 2**DECONVOLUTIONS

    def forward(self, x: Tensor) -> PoseFeatures:
        first = self.first(self.entrance(x))
        last = self.stages(first)
        return PoseFeatures(
            self.head(last),
            None if self.upsample is None else self.upsample(last),
            None if self.intermediate is None else self.intermediate(first),
        )
