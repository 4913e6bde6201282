"""The `model` section of the cascade's run config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from mtlsearch.faces.cascade.pose_branch import OUTPUT_STRIDE, check_resnet
from mtlsearch.faces.heads.binned_pose import Bins
from mtlsearch.faces.heads.heatmaps import Expectation, SumExpectation
from mtlsearch.training.schema import Section

Width = Annotated[int, Field(ge=8, le=4096)]


class Links(Section):
    """What a block passes on to the next; `cascade.block` says what off means for each."""

    sum: bool = True
    unification: bool = True
    insertion: bool = True


class CascadeModelConfig(Section):
    """Everything that decides the network and what its heatmaps mean."""

    backbone: Annotated[str, AfterValidator(check_resnet)] = "resnet50"
    """a ResNet of timm's, whose four stages make each pose branch"""
    pretrained: bool = False
    """with the weights that timm downloads"""
    points: Literal[21, 68] = 68
    """68, or AFLW's 21, which follow from data of 68"""
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    channels: Width = 256
    """of every map that goes between stem, branches and blocks"""
    stem: Width = 64
    """channels of the stem's first convolution"""
    bins: Bins = Bins()
    expectation: Expectation = SumExpectation()
    """how a heatmap becomes a point"""
    sigma: PositiveFloat = 1.0
    """of the target heatmaps, in cells"""
    links: Links = Links()


def check_image_size(size: int) -> int:
    """`size` if the cascade takes images of that side; ValueError otherwise."""
    smallest = 2 * OUTPUT_STRIDE
    if size % OUTPUT_STRIDE or size < smallest:
        below = max(smallest, size // OUTPUT_STRIDE * OUTPUT_STRIDE)
        raise ValueError(
            f"the cascade halves its images and brings them back, so their side must be a multiple of {OUTPUT_STRIDE} "
            f"from {smallest} up, got {size}; take {below} or {below + OUTPUT_STRIDE}"
        )
    return size
