"""The `losses` section of the cascade's run config: eq. 2 and 5 of Zhang 2018, each with its value for a constant."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from mtlsearch.faces.heads.binned_pose import Bins, binned_pose_loss, constant_pose_loss
from mtlsearch.faces.heads.heatmaps import coordinate_loss, heatmap_loss
from mtlsearch.training.schema import Section


class PoseLoss(Section):
    """Eq. 2. alpha: α₁, of the cross-entropy; weight: 1 in eq. 6; squared: as "MSE" says, not as eq. 2 is printed."""

    alpha: NonNegativeFloat = 1.0
    weight: NonNegativeFloat = 1.0
    squared: bool = True

    def __call__(self, logits: Tensor, angles: Tensor, bins: Bins) -> Tensor:
        """Logits (N, 3, count), angles (N, 3) degrees -> a scalar, unweighted."""
        return binned_pose_loss(logits, angles, bins, self.alpha, self.squared)

    def of_a_constant(self, angles: Tensor, bins: Bins) -> float:
        """The loss of predicting the mean angles and the frequencies of the bins for all of angles (N, 3)."""
        return float(constant_pose_loss(angles, bins, self.alpha, self.squared))


class LandmarkLoss(Section):
    """Eq. 5. alpha: α₂, of the heatmaps; weight: λ of eq. 6; squared: as "MSE" says, not as eq. 4 and 5 are printed.

    visible: which landmarks have a heatmap and a coordinate error. "labelled": those that the data calls visible, as in
    the paper; "inside": all that lie in the crop, hidden or not, for data that knows them all and metrics that count
    them all, as AFLW2000-3D's 68 points do. The hidden ones of 21 points are never learned: AFLW gives them no
    coordinates.
    """

    alpha: NonNegativeFloat = 1.0
    weight: NonNegativeFloat = 1.0
    squared: bool = True
    visible: Literal["labelled", "inside"] = "labelled"

    def __call__(self, found: Tensor, landmarks: Tensor, heatmaps: Tensor, maps: Tensor, visible: Tensor) -> Tensor:
        """Eq. 5, unweighted.

        found, landmarks: (N, K, 2), decoded and true, in one unit; heatmaps, maps: (N, K, h, w), given and target;
        visible: (N, K) bool -> a scalar.
        """
        return coordinate_loss(found, landmarks, visible, self.squared) + self.alpha * heatmap_loss(
            heatmaps, maps, self.squared
        )

    def of_a_constant(self, landmarks: Tensor, visible: Tensor, sigma: float) -> float:
        """The loss of predicting the mean landmarks and empty heatmaps for all of landmarks (N, K, 2).

        A landmark that counts, away from the border, has ‖H‖² = πσ² over the cells.
        """
        count = visible.sum(0).clamp(min=1)[:, None]
        mean = torch.where(visible[..., None], landmarks, 0).sum(0) / count
        energy = math.pi * sigma**2 if self.squared else math.sqrt(math.pi) * sigma
        spread = coordinate_loss(mean.expand_as(landmarks), landmarks, visible, self.squared)
        return float(spread + self.alpha * energy * visible.float().mean())


class CascadeLosses(Section):
    normalize: bool = True
    """divide each task by its value for a constant prediction"""
    pose: PoseLoss = PoseLoss()
    landmarks: LandmarkLoss = LandmarkLoss()
