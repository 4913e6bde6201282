"""Zhang 2018's network: the stem and the blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtlsearch.errors import InputError
from mtlsearch.faces.cascade.block import Block
from mtlsearch.faces.cascade.config import CascadeModelConfig, check_image_size
from mtlsearch.faces.cascade.stem import Stem


class CascadeNetwork(nn.Module):
    """Images (N, 3, S, S) -> the outputs of all B blocks.

    heatmaps (N, B, K, S/4, S/4); logits (N, B, 3, bins), pitch, yaw, roll.

    Raises:
        InputError: S is not a multiple of 16.
    """

    def __init__(self, config: CascadeModelConfig, image_size: int) -> None:
        super().__init__()
        try:
            check_image_size(image_size)
        except ValueError as error:
            raise InputError(f"data.image_size: {error}") from None
        self.stem = Stem(config.stem, config.channels)
        self.blocks = nn.ModuleList(Block(config, image_size, position) for position in range(config.blocks))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, information = self.stem(images), None
        heatmaps, logits = [], []
        for block in self.blocks:
            output = block(x, information)
            x, information = output.next_map, output.information
            heatmaps.append(output.heatmaps)
            logits.append(output.logits)
        return {"heatmaps": torch.stack(heatmaps, dim=1), "logits": torch.stack(logits, dim=1)}

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the losses of both tasks reach: the stem, and of every block but the last what it passes on."""
        shared = list(self.stem.parameters())
        for block in self.blocks.children():
            assert isinstance(block, Block)
            shared += block.shared_parameters()
        return shared
