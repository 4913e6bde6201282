"""The face problem: landmarks and head pose from packed crops, by one of the published systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces.augmentation import Augmentation, Labels, augment
from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.metrics import YAW_BINS, nme, nme_by_yaw, pose_error
from mtlsearch.faces.morphable_model import morphable_model
from mtlsearch.faces.packs import Pack, ensure_pack
from mtlsearch.faces.systems import SYSTEMS, FaceStatistics, Prediction, Targets
from mtlsearch.training.config import RunConfig
from mtlsearch.training.problem import Progress

#: images at a time while evaluating
_EVALUATION_BATCH = 256
_LABELS = ("landmarks", "angles", "pose", "shape", "expression")


class FaceProblem:
    """Landmarks and head pose. NME by the published protocol: `nme` is the mean of the three yaw bins' means."""

    objectives = {"nme": "min", "mae": "min"}
    metrics = (
        "nme", "nme_0_30", "nme_30_60", "nme_60_90", "nme_std", "nme_whole",
        "mae", "mae_pitch", "mae_yaw", "mae_roll",
    )  # fmt: skip

    def __init__(self, config: FaceRunConfig) -> None:
        self.config = config
        self.tasks = SYSTEMS[config.system].tasks
        self._device = torch.device("cpu")
        self._pack: Pack | None = None

    @classmethod
    def config_class(cls, tree: Mapping[str, Any]) -> type[RunConfig]:
        name = tree.get("system", "morphable")
        if not isinstance(name, str) or name not in SYSTEMS:
            raise InputError(unknown_name("system", name, SYSTEMS))
        return SYSTEMS[name].Config

    def prepare(self, progress: Progress | None = None) -> None:
        self._pack = ensure_pack(self.config.data.recipe, progress=progress)
        for split in ("val", "test"):
            yaw = np.abs(self._pack.split(split).labels["angles"][:, 1])
            counts = np.histogram(yaw, [0, *YAW_BINS, np.inf])[0]
            if not counts.all():
                raise InputError(
                    f"data: the {split} split has {counts.tolist()} faces in the yaw bins 0-30, 30-60 and above 60 "
                    f"degrees, and the published NME is the mean over all three; give it more images"
                )
        self._statistics = self._measure()

    def to(self, device: torch.device) -> None:
        self._device = device

    def describe_data(self) -> str:
        data = self.config.data
        return (
            f"synthetic faces ({data.train:,} train, {data.val:,} val, {data.test:,} test, "
            f"{data.image_size} px, recipe {data.recipe.digest()})"
        )

    def size(self, split: str) -> int:
        return len(self._split(split))

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, Targets]:
        return self._load("train", indices, self.config.augmentation, generator)

    def build_model(self) -> nn.Module:
        model = SYSTEMS[self.config.system](self.config, self._statistics)  # type: ignore[arg-type]
        # twice as fast as NCHW on CPU for these networks, and what tensor cores want
        return model.to(memory_format=torch.channels_last)

    def shared_parameters(self, model: nn.Module) -> list[nn.Parameter] | None:
        return model.shared_parameters()  # type: ignore[operator]

    def losses(self, model: nn.Module, batch: tuple[torch.Tensor, Targets]) -> dict[str, torch.Tensor]:
        images, targets = batch
        return model.losses(model(images), targets)  # type: ignore[operator]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        landmarks, angles = [], []
        for indices in torch.arange(self.size(split)).split(_EVALUATION_BATCH):
            images, _ = self._load(split, indices, Augmentation.off())
            prediction: Prediction = model.decode(model(images))  # type: ignore[operator]
            landmarks.append(prediction.landmarks.cpu())
            angles.append(prediction.angles.cpu())
        return self._score(Prediction(torch.cat(landmarks), torch.cat(angles)), split)

    def trivial_metrics(self, split: str) -> dict[str, float]:
        """The mean landmarks and mean angles of the training split, for every face."""
        targets = self._statistics.targets
        count = self.size(split)
        constant = Prediction(targets.landmarks.mean(0).expand(count, -1, -1), targets.angles.mean(0).expand(count, -1))
        return self._score(constant, split)

    def _split(self, name: str) -> Any:
        if self._pack is None:
            raise RuntimeError("prepare() comes before anything else")
        return self._pack.split(name)

    def _load(
        self,
        split: str,
        indices: torch.Tensor,
        augmentation: Augmentation,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, Targets]:
        packed = self._split(split)
        rows = indices.numpy()
        images = torch.from_numpy(packed.images[rows]).to(self._device)
        labels = {name: torch.from_numpy(packed.labels[name][rows]) for name in _LABELS}
        images, labels = augment(
            images, labels, augmentation, image_size=self.config.data.image_size, generator=generator
        )
        return images.contiguous(memory_format=torch.channels_last), _targets(labels, self._device)

    def _targets_of(self, split: str) -> Targets:
        """Targets of a whole split in the pixels of its central crop, without touching an image."""
        packed = self._split(split)
        margin = (self._pack.stored_size - self.config.data.image_size) / 2  # type: ignore[union-attr]
        labels = {name: torch.from_numpy(packed.labels[name]) for name in _LABELS}
        labels["landmarks"] = labels["landmarks"] - torch.tensor([margin, margin, 0.0])
        pose = labels["pose"].clone()
        pose[:, 3] -= margin
        pose[:, 7] -= margin
        labels["pose"] = pose
        return _targets(labels, torch.device("cpu"))

    def _score(self, prediction: Prediction, split: str) -> dict[str, float]:
        targets = self._targets_of(split)
        by_yaw = nme_by_yaw(nme(prediction.landmarks, targets.landmarks), targets.angles[:, 1])
        pitch, yaw, roll = pose_error(prediction.angles, targets.angles).double().mean(dim=0).tolist()
        return {
            "nme": by_yaw.mean_of_bins,
            "nme_0_30": by_yaw.nme_0_30,
            "nme_30_60": by_yaw.nme_30_60,
            "nme_60_90": by_yaw.nme_60_90,
            "nme_std": by_yaw.std_of_bins,
            "nme_whole": by_yaw.whole_set,
            "mae": (pitch + yaw + roll) / 3,
            "mae_pitch": pitch,
            "mae_yaw": yaw,
            "mae_roll": roll,
        }

    def _measure(self) -> FaceStatistics:
        targets = self._targets_of("train")
        basis = morphable_model().landmark_basis()
        std, mean = torch.std_mean(targets.parameters.double(), dim=0)
        return FaceStatistics(
            image_size=self.config.data.image_size,
            basis_mean=torch.from_numpy(basis.mean).float(),
            basis_modes=torch.from_numpy(np.concatenate([basis.shape, basis.expression], axis=2)).float(),
            parameter_mean=mean.float(),
            # a parameter that never varies (the depth of a weak-perspective pose) stays as it is
            parameter_std=torch.where(std > 1e-6, std, torch.ones_like(std)).float(),
            targets=targets,
        )


def _targets(labels: Labels, device: torch.device) -> Targets:
    parameters = torch.cat([labels["pose"], labels["shape"], labels["expression"]], dim=1)
    return Targets(
        labels["landmarks"].float().to(device),
        labels["angles"].float().to(device),
        parameters.float().to(device),
    )
