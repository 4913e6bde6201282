"""The landmark branch: an hourglass (Newell et al. 2016) that ends in heatmaps (Zhang 2018, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mtlsearch.faces.cascade.residual import residual

#: the side that the hourglass goes down to, or a little above where halving does not lead to it
LOWEST = 4


def hourglass_levels(side: int) -> int:
    """How often a map of this side is halved: while it is even and the half is 4 or more. 64 -> 4, down to 4 × 4.

    >>> [hourglass_levels(side) for side in (64, 24, 16, 8)]
    [4, 2, 2, 1]
    """
    levels = 0
    while side % 2 == 0 and side // 2 >= LOWEST:
        side, levels = side // 2, levels + 1
    return levels


class Hourglass(nn.Module):
    """(N, channels, H, H) -> the same shape: down by max pooling, up by repetition, a residual module at every step.

    Every level keeps a copy of its map past the lower ones, and adds it on the way up.

    Args:
        levels: how often the map is halved.
        insertion: whether a pose information map (N, channels, H, H) of the block before goes into the middle, the
            lowest map: averaged down to its side, through a 1 × 1 convolution, added.
    """

    def __init__(self, channels: int, levels: int, insertion: bool) -> None:
        super().__init__()
        self.levels = levels
        self.past = nn.ModuleList(residual(channels, channels) for _ in range(levels))
        self.down = nn.ModuleList(residual(channels, channels) for _ in range(levels))
        self.up = nn.ModuleList(residual(channels, channels) for _ in range(levels))
        self.middle = residual(channels, channels)
        self.insert = nn.Conv2d(channels, channels, 1) if insertion else None

    def forward(self, x: Tensor, information: Tensor | None = None) -> Tensor:
        """information: the pose information map, where there is an insertion."""
        kept = []
        for past, down in zip(self.past, self.down):
            kept.append(past(x))
            x = down(functional.max_pool2d(x, 2))
        if self.insert is not None:
            assert information is not None
            x = x + self.insert(functional.avg_pool2d(information, 2**self.levels))
        x = self.middle(x)
        for up, past_map in zip(self.up, reversed(kept)):
            x = past_map + functional.interpolate(up(x), scale_factor=2.0, mode="nearest")
        return x


class LandmarkBranch(nn.Module):
    """(N, channels, H, H) -> heatmaps (N, points, H, H): an hourglass, a residual module, two 1 × 1 convolutions."""

    def __init__(self, channels: int, points: int, side: int, insertion: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(channels, hourglass_levels(side), insertion)
        last = nn.Conv2d(channels, points, 1)
        # starting near empty maps is starting from the centre
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.heatmaps = nn.Sequential(
            residual(channels, channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor, information: Tensor | None = None) -> Tensor:
        return self.heatmaps(self.hourglass(x, information))
