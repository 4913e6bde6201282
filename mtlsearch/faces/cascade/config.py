"""The `model` section of the cascade's run config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from mtlsearch.faces.cascade.pose_branch import OUTPUT_STRIDE, check_resnet
from mtlsearch.faces.heads.binned_pose import Bins
from mtlsearch.faces.heads.heatmaps import Expectation, SumExpectation
from mtlsearch.training.schema import Section

Width = Annotated[int, Field(ge=8, le=4096)]


class PoseConfig(Section):
    """backbone: a ResNet of timm's, whose four stages are taken; pretrained: their published weights."""

    backbone: Annotated[str, AfterValidator(check_resnet)] = "resnet50"
    pretrained: bool = False


class Links(Section):
    """What a block passes on to the next; `cascade.block` says what off means for each."""

    sum: bool = True
    unification: bool = True
    insertion: bool = True


class CascadeModelConfig(Section):
    """points: 68, or AFLW's 21, which follow from 68; blocks: stacked, two in the paper; channels: of the maps between
    the parts, 256 in Newell; stem: channels of the first convolution, 64 in Newell; sigma: of the target heatmaps, in
    cells; expectation: how a heatmap becomes a point.
    """

    points: Literal[21, 68] = 68
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    channels: Width = 256
    stem: Width = 64
    pose: PoseConfig = PoseConfig()
    bins: Bins = Bins()
    expectation: Expectation = SumExpectation()
    sigma: PositiveFloat = 1.0
    links: Links = Links()


def check_image_size(size: int) -> int:
    """`size` if the cascade takes images of that side; ValueError otherwise."""
    smallest = 2 * OUTPUT_STRIDE
    if size % OUTPUT_STRIDE or size < smallest:
        below = max(smallest, size // OUTPUT_STRIDE * OUTPUT_STRIDE)
        raise ValueError(
            f"the cascade takes images whose side is a multiple of {OUTPUT_STRIDE}, from {smallest} up, so that what it "
            f"halves comes back to the same size; got {size}; take {below} or {below + OUTPUT_STRIDE}"
        )
    return size
