"""One block of the cascade, and the three links that lead from it to the next (Zhang 2018, section 3.3).

A block reads a map (N, C, H, H). Its pose branch gives logits of the angles, its landmark branch heatmaps, and both
make the map that the next block reads:

    next map = U(heatmaps) + upsampled pose features + intermediate pose features

with U the channel unification layer, a 1 × 1 convolution from as many channels as there are points to C. The next
hourglass also gets the upsampled pose features, the *pose information map*, into its middle.

Each link can be switched off, to find out what it is worth:

sum          off: the two pose terms stay out of the next map, and the block's own input stands in their place, as in
             Newell's stacks, so that the next block still has an image to look at.
unification  off: U is not there, and the heatmaps stay out of the next map.
insertion    off: the next hourglass gets no pose information map.

With all three off every block reads the stem's map and knows nothing of the one before. What no link needs is not
built: no deconvolutions where neither sum nor insertion reads them, and nothing of all this in the last block.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mtlsearch.faces.cascade.config import CascadeModelConfig, Links
from mtlsearch.faces.cascade.hourglass import LandmarkBranch
from mtlsearch.faces.cascade.pose_branch import PoseBranch
from mtlsearch.faces.cascade.stem import STRIDE

_NO_LINKS = Links(sum=False, unification=False, insertion=False)


class BlockOutput(NamedTuple):
    """heatmaps (N, K, H, H), logits (N, 3, bins), next_map (N, C, H, H), information (N, C, H, H) or None."""

    heatmaps: Tensor
    logits: Tensor
    next_map: Tensor
    information: Tensor | None


class Block(nn.Module):
    """A pose branch and a landmark branch side by side over one map.

    config: of the whole network; image_size: side S of its input, H is S / 4; position: from 0.
    """

    def __init__(self, config: CascadeModelConfig, image_size: int, position: int) -> None:
        super().__init__()
        channels = config.channels
        self.links = config.links if position < config.blocks - 1 else _NO_LINKS
        self.pose = PoseBranch(
            channels,
            config.backbone,
            config.pretrained,
            config.bins,
            upsampled=self.links.sum or self.links.insertion,
            intermediate=self.links.sum,
        )
        receives = position > 0 and config.links.insertion
        self.landmarks = LandmarkBranch(channels, config.points, image_size // STRIDE, receives)
        self.unify = nn.Conv2d(config.points, channels, 1) if self.links.unification else None
        # with insertion alone the upsampled features come to a pose loss by the next block's heatmaps, if at all
        self._upsampled_for_both = self.links.sum or (self.links.unification and position < config.blocks - 2)

    def forward(self, x: Tensor, information: Tensor | None = None) -> BlockOutput:
        """x (N, C, H, H); information: what the block before inserts."""
        pose = self.pose(x)
        heatmaps = self.landmarks(x, information)
        next_map = x
        if self.links.sum:
            next_map = pose.upsampled + pose.intermediate
        if self.unify is not None:
            next_map = next_map + self.unify(heatmaps)
        return BlockOutput(heatmaps, pose.logits, next_map, pose.upsampled if self.links.insertion else None)

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the losses of both tasks reach: the parameters behind what the block passes on."""
        behind: list[nn.Module | None] = []
        if self.links.sum or self.links.insertion:
            behind += [self.pose.entrance, self.pose.first, self.pose.stages, self.pose.intermediate]
        if self._upsampled_for_both:
            behind.append(self.pose.upsample)
        if self.unify is not None:
            behind += [self.landmarks, self.unify]
        return [parameter for module in behind if module is not None for parameter in module.parameters()]
