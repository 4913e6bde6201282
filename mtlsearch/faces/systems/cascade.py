"""Zhang 2018: pose and landmarks in a cascade of blocks, each of which tells the next what it has found.

Equations of the paper and where they are: (1) and (2) `heads.binned_pose`; (3) to (5) `heads.heatmaps`; (6) the
weights of the two loss sections, λ being that of the landmarks. The network is in `faces.cascade`, and
docs/systems/zhang2018.md goes through the paper. The two terms of eq. 6, summed over the blocks, are the tasks.

Ours, because the paper does not say: sums over angles and landmarks are means; coordinates are in cells of a 64² map,
that is in 1/64 of the crop's side, whatever the image size, and angles in degrees; with `normalize` each task is
divided by its value for a constant prediction (the mean landmarks and empty heatmaps; the mean angles and the
frequencies of their bins) in every block, so that λ = 1 weighs both alike.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from mtlsearch.errors import InputError
from mtlsearch.faces import metrics
from mtlsearch.faces.cascade.config import CascadeModelConfig, check_image_size
from mtlsearch.faces.cascade.losses import CascadeLosses
from mtlsearch.faces.cascade.network import CascadeNetwork
from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.heads.binned_pose import expected_angles
from mtlsearch.faces.heads.heatmaps import (
    LOSS_CELLS,
    cells_to_pixels,
    landmarks_that_count,
    pixels_to_cells,
    target_heatmaps,
    visible_where_needed,
)
from mtlsearch.faces.systems.system import System
from mtlsearch.faces.targets import FaceStatistics, Prediction, Targets


class CascadeRunConfig(FaceRunConfig):
    system: Literal["cascade"] = "cascade"
    model: CascadeModelConfig = CascadeModelConfig()
    losses: CascadeLosses = CascadeLosses()

    @model_validator(mode="after")
    def _an_image_size_that_the_network_takes(self) -> CascadeRunConfig:
        if self.data.image_size is not None:  # otherwise it is the pack's, which the network checks
            try:
                check_image_size(self.data.image_size)
            except ValueError as error:
                raise ValueError(f"data.image_size: {error}") from None
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("landmarks", "pose")

    @property
    def labels(self) -> tuple[str, ...]:
        labelled = self.losses.landmarks.visible == "labelled"
        return ("landmarks", "visible", "angles") if labelled else ("landmarks", "angles")

    @property
    def points(self) -> int:
        return self.model.points

    @property
    def needs_depth(self) -> bool:
        return False


class Cascade(System):
    """Images (N, 3, S, S) -> heatmaps (N, B, K, S/4, S/4) and logits (N, B, 3, bins) of B blocks; S is 16 times k."""

    Config = CascadeRunConfig

    def __init__(self, config: CascadeRunConfig, statistics: FaceStatistics) -> None:
        super().__init__(config, statistics)
        self._model, self._losses = config.model, config.losses
        self.network = CascadeNetwork(config.model, self.image_size)
        landmarks, visible = self._points(statistics.targets)
        unit = LOSS_CELLS / self.image_size
        constant = {
            "landmarks": self._losses.landmarks.of_a_constant(landmarks * unit, visible, self._model.sigma),
            "pose": self._losses.pose.of_a_constant(statistics.targets.angles, self._model.bins),
        }
        # statistics without faces, of a system that is built to predict, have no such value
        self._scale = {
            task: value * self._model.blocks if config.losses.normalize and value > 0 else 1.0
            for task, value in constant.items()
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`CascadeNetwork`'s output: heatmaps and logits of all blocks."""
        return self.network(images)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The stem, and of every block but the last what leads to the next one, whose two branches read it."""
        return self.network.shared_parameters()

    def losses(self, output: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Eq. 5 and 2, summed over the blocks, weighted as in eq. 6 and normalised, one scalar per task."""
        landmarks, visible = self._points(targets)
        cells = output["heatmaps"].shape[-1]
        maps = target_heatmaps(pixels_to_cells(landmarks, self.image_size, cells), visible, cells, self._model.sigma)
        unit = LOSS_CELLS / self.image_size
        values = {
            "landmarks": [
                self._losses.landmarks(self._located(heatmaps) * unit, landmarks * unit, heatmaps, maps, visible)
                for heatmaps in output["heatmaps"].unbind(1)
            ],
            "pose": [
                self._losses.pose(logits, targets.angles, self._model.bins) for logits in output["logits"].unbind(1)
            ],
        }
        return {
            task: torch.stack(of_blocks).sum() * (getattr(self._losses, task).weight / self._scale[task])
            for task, of_blocks in values.items()
        }

    def decode(self, output: dict[str, Tensor]) -> Prediction:
        """The last block's landmarks (N, K, 2) in pixels of the crop and angles (N, 3) in degrees."""
        angles = expected_angles(output["logits"][:, -1], self._model.bins)
        return Prediction(self._located(output["heatmaps"][:, -1]), angles)

    def _located(self, heatmaps: Tensor) -> Tensor:
        """Eq. 3: heatmaps (N, K, h, w) -> landmarks (N, K, 2) in pixels of the crop."""
        return cells_to_pixels(self._model.expectation(heatmaps), self.image_size, heatmaps.shape[-1])

    def _points(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """Target landmarks (N, K, 2) in pixels of the crop, and which of them count (N, K) bool."""
        landmarks = targets.landmarks[..., :2]
        visible = visible_where_needed(targets, self._losses.landmarks.visible)
        if landmarks.shape[1] == 68 and self._model.points == 21:
            landmarks = metrics.to_21_points(landmarks)
            visible = None if visible is None else metrics.visible_21_points(visible)
        elif landmarks.shape[1] != self._model.points:
            raise InputError(
                f"model.points: {self._model.points} points cannot be learned from data with {landmarks.shape[1]}; set "
                f"model.points={landmarks.shape[1]}"
            )
        return landmarks, landmarks_that_count(landmarks, visible, self.image_size)
