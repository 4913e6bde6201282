"""The figures of merit over a split that comes in batches, and over workers that each have a part of it.

What is kept is a row of numbers per image, because bins, subsets and curves are functions of the whole set and no mean
of batch means gives them. torchmetrics.Metric would hold and gather the same rows; importing it (1.9) takes another
second in every worker of a search and pulls in matplotlib, for what `gather` does here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.distributed

from mtlsearch.faces import metrics
from mtlsearch.faces.geometry import box_of_landmarks
from mtlsearch.training.sample_scores import SampleScores

#: percent of the box; the thresholds of the AUC and of a failure
AUC_THRESHOLD = 7.0
FAILURE_THRESHOLD = 10.0
BALANCED_SEED = 0


@dataclass(frozen=True)
class GroundTruth:
    """What N predictions are compared with, in the same pixels.

    landmarks (N, 68 or 21, 2 or 3); angles (N, 3) degrees, NaN where unknown; visible (N, K) bool and size (N,) pixels,
    √(w·h) of the box: of data sets that say so, otherwise all points count and the box is the landmarks'.
    """

    landmarks: torch.Tensor
    angles: torch.Tensor
    visible: torch.Tensor | None = None
    size: torch.Tensor | None = None


@dataclass
class FaceScores:
    """Accumulates predictions of a split: `update` per batch, `gather` once where workers share it, then `compute`.

    pose_limit: images with any angle beyond it (degrees) do not count in the pose error. An angle that the ground truth
    does not say leaves the others their figures; `mae` and `mae_geodesic` need all three, and `pose_count` says how
    many images have them. A prediction that is not a number makes every figure it counts in not a number.
    """

    pose_limit: float | None = None
    _rows: list[torch.Tensor] = field(default_factory=list)

    #: the names that `compute` gives, all of them every time
    names = (
        "nme", "nme_0_30", "nme_30_60", "nme_60_90", "nme_std", "nme_whole", "nme_balanced", "nme_3d",
        "nme_auc", "nme_failure", "mae", "mae_pitch", "mae_yaw", "mae_roll", "mae_geodesic",
    )  # fmt: skip

    def update(self, landmarks: torch.Tensor, angles: torch.Tensor, truth: GroundTruth) -> None:
        """Adds a batch of predictions: landmarks (N, 68, 3) pixels, angles (N, 3) degrees: pitch, yaw, roll.

        Where either has 21 points, the 21 that follow from the other's 68 are compared, over the box of the truth.
        """
        points = landmarks.detach().cpu()
        target = truth.landmarks.cpu()
        visible = None if truth.visible is None else truth.visible.cpu()
        size = None if truth.size is None else truth.size.cpu()
        if target.shape[1] == 21 and points.shape[1] == 68:
            points = metrics.to_21_points(points)
        elif target.shape[1] == 68 and points.shape[1] == 21:
            size = metrics.box_size(box_of_landmarks(target)) if size is None else size
            target = metrics.to_21_points(target)
        columns = [metrics.nme(points, target, visible=visible, size=size)]
        if target.shape[2] == 3 and points.shape[2] == 3:
            level = metrics.level_depth(points), metrics.level_depth(target)
            columns.append(metrics.nme(*level, visible=visible, size=size, dimensions=3))
        else:
            columns.append(torch.full_like(columns[0], torch.nan))
        predicted, target_angles = angles.detach().cpu().double(), truth.angles.cpu().double()
        counted = metrics.angles_that_count(target_angles, self.pose_limit).double()
        turned = metrics.pose_error(predicted, target_angles)
        geodesic = metrics.geodesic_error(predicted, target_angles)[:, None]
        single = (column[:, None].double() for column in columns)
        rows = [*single, target_angles[:, 1:2].abs(), turned, geodesic, counted]
        self._rows.append(torch.cat(rows, dim=1))

    def gather(self) -> None:
        """Brings the rows of all workers of the process group together, in the order of their ranks; all call it."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[torch.Tensor | None] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self._table())
            self._rows = [part for part in parts if part is not None]

    def compute(self) -> dict[str, float]:
        """Every figure by name; NaN where no image counts. `nme` is the mean of the three yaw bins' means.

        nme_balanced: the mean over the balanced subset of seed 0; nme_auc: the area under the CED up to 7 %;
        nme_failure: the share of images above 10 %, both in percent.
        """
        table = self._table()
        nme, nme_3d, yaw, turned, geodesic = table[:, 0], table[:, 1], table[:, 2], table[:, 3:6], table[:, 6]
        by_yaw = metrics.nme_by_yaw(nme, yaw)
        each = self._counted()
        pitch, yaw_error, roll = (turned[each[:, i], i].mean().item() for i in range(3))
        whole = each.all(dim=1)
        return {
            "nme": by_yaw.mean_of_bins,
            "nme_0_30": by_yaw.nme_0_30,
            "nme_30_60": by_yaw.nme_30_60,
            "nme_60_90": by_yaw.nme_60_90,
            "nme_std": by_yaw.std_of_bins,
            "nme_whole": by_yaw.whole_set,
            "nme_balanced": nme[metrics.balanced_subset(yaw, BALANCED_SEED)].mean().item(),
            "nme_3d": nme_3d.mean().item(),
            "nme_auc": metrics.area_under_ced(nme, AUC_THRESHOLD),
            "nme_failure": metrics.failure_rate(nme, FAILURE_THRESHOLD),
            "mae": turned[whole].mean().item(),
            "mae_pitch": pitch,
            "mae_yaw": yaw_error,
            "mae_roll": roll,
            "mae_geodesic": geodesic[whole].mean().item(),
        }

    def per_image(self) -> dict[str, torch.Tensor]:
        """What `compute` sums up, (N,) float64 each, in the order in which the images came.

        nme, nme_3d: percent; pitch, yaw, roll: absolute errors in degrees, NaN where an angle does not count; geodesic:
        degrees.
        """
        table = self._table()
        turned = torch.where(self._counted(), table[:, 3:6], torch.nan)
        errors = dict(zip(("pitch", "yaw", "roll"), turned.unbind(1)))
        return {"nme": table[:, 0], "nme_3d": table[:, 1], **errors, "geodesic": table[:, 6]}

    def samples(self) -> dict[str, SampleScores]:
        """`nme` by yaw bins and `mae`, image by image; a metric that is not a number is left out."""
        table, metric = self._table(), self.compute()
        whole = self._counted().all(dim=1)
        found = {
            "nme": SampleScores(table[:, 0].numpy(), metrics.yaw_bin(table[:, 2]).numpy()),
            "mae": SampleScores(table[:, 3:6].mean(dim=1).numpy(), torch.where(whole, 0, -1).numpy()),
        }
        return {name: one for name, one in found.items() if math.isfinite(metric[name])}

    @property
    def pose_count(self) -> int:
        """Images whose whole pose counts in the pose error."""
        return int(self._counted().all(dim=1).sum())

    def _counted(self) -> torch.Tensor:
        return self._table()[:, 7:] > 0

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    def _table(self) -> torch.Tensor:
        return torch.cat(self._rows) if self._rows else torch.empty(0, 10, dtype=torch.float64)
