"""The face problem: landmarks and head pose from packed crops, by one of the published systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces import geometry
from mtlsearch.faces.augmentation import Augmentation, Labels, augment, centre_crop, scaled
from mtlsearch.faces.checkpoints import LoadedSystem, without_pretrained
from mtlsearch.faces.config import FaceRunConfig, SyntheticData
from mtlsearch.faces.evaluation.accumulator import FaceScores
from mtlsearch.faces.evaluation.splits import mean_face, predict_split, score_split
from mtlsearch.faces.metrics import YAW_BINS, within_pose_limit, yaw_bin
from mtlsearch.faces.morphable.coefficient_mirror import CoefficientMirror, mirror_of
from mtlsearch.faces.morphable.dense_labels import SOURCES, dense_of
from mtlsearch.faces.morphable.dense_points import COUNT as DENSE_POINTS
from mtlsearch.faces.packs.batches import DeviceSplit
from mtlsearch.faces.packs.fetching import local_pack
from mtlsearch.faces.packs.pack import Pack, ensure_pack, pack_folder
from mtlsearch.faces.rendering.synthetic import SPLITS
from mtlsearch.faces.systems import SYSTEMS, System
from mtlsearch.faces.targets import FaceStatistics, ModelBasis, Targets
from mtlsearch.training.config import RunConfig
from mtlsearch.training.problem import Progress, WholeData
from mtlsearch.training.sample_scores import SampleScores

#: faces that statistics are taken of, and of systems with dense points, which weigh eight times as much; a training
#: split of 3DDFA's has thirty times as many
_STATISTICS, _DENSE_STATISTICS = 20_000, 2_000
#: faces of a split that stand in for all; enough that every yaw bin has some
_STAND_IN = 128
_PARAMETERS = ("pose", "shape", "expression")


class FaceProblem:
    """Landmarks and head pose. NME by the published protocol: `nme` is the mean of the three yaw bins' means."""

    objectives = {"nme": "min", "mae": "min"}
    metrics = FaceScores.names

    def __init__(self, config: FaceRunConfig) -> None:
        self.config = config
        self.tasks = config.tasks
        self._device = torch.device("cpu")
        self._packs: dict[str, Pack] = {}
        self._splits: dict[str, DeviceSplit] = {}
        self._shown: int | None = None

    @classmethod
    def config_class(cls, tree: Mapping[str, Any]) -> type[RunConfig]:
        name = tree.get("system", "morphable")
        if not isinstance(name, str) or name not in SYSTEMS:
            raise InputError(unknown_name("system", name, SYSTEMS))
        return SYSTEMS[name].Config

    def prepare(self, progress: Progress | None = None) -> None:
        data = self.config.data
        if isinstance(data, SyntheticData):
            self._open(dict.fromkeys(SPLITS, ensure_pack(data.recipe, progress=progress)))
        else:
            opened = {folder: local_pack(folder, progress) for folder in dict.fromkeys(map(data.folder, SPLITS))}
            self._open({split: opened[data.folder(split)] for split in SPLITS})

    def _open(self, packs: dict[str, Pack]) -> None:
        self._packs = packs
        self._check()
        self._statistics = self._measure()

    def prepare_stand_in(self, folder: Path, progress: Progress | None = None) -> WholeData:
        """Faces that are rendered already, or a few of the recipe in `folder`; packs as they are. Pretrained weights,
        which change no time, are not fetched."""
        self.config = type(self.config).model_validate(without_pretrained(self.config.tree()))
        data = self.config.data
        if not isinstance(data, SyntheticData) or pack_folder(data.recipe).exists():
            self.prepare(progress)
            return WholeData({split: self.size(split) for split in SPLITS})
        recipe = data.recipe
        sizes = {split: recipe.count(split) for split in SPLITS}
        few = {split: min(count, _STAND_IN) for split, count in sizes.items()}
        self._open(dict.fromkeys(SPLITS, ensure_pack(replace(recipe, **few), folder, progress)))
        left_out = sum(sizes[split] - few[split] for split in ("train", "val"))
        return WholeData(sizes, left_out * recipe.stored_size**2 * 3)

    def to(self, device: torch.device) -> None:
        self._device = device
        self._splits.clear()

    def resize(self, image_size: int | None) -> None:
        """Images of this side from now on; landmarks stay in pixels of the config's own size."""
        self._shown = image_size

    def describe_data(self) -> str:
        data = self.config.data
        if isinstance(data, SyntheticData):
            return (
                f"synthetic faces ({data.train:,} train, {data.val:,} val, {data.test:,} test, "
                f"{data.image_size} px, recipe {data.recipe.digest()})"
            )
        parts = []
        for split, pack in self._packs.items():
            limit, count = self._pose_limit(split), self.size(split)
            left = count - int(within_pose_limit(pack.split(split).labels["angles"], limit).sum())
            why = "an angle unknown" if limit is None else f"an angle unknown or beyond ±{limit:g}°"
            published = pack.manifest.get("published")
            of = f" of {published:,}" if split == "test" and published not in (None, count) else ""
            note = f", {left:,} of them left out of mae and mae_geodesic for {why}" if left and split != "train" else ""
            parts.append(f"{split} {pack.source} {count:,}{of}{note} [pack {pack.digest}]")
        return f"packed faces ({'; '.join(parts)}; {self.image_size} px)"

    def size(self, split: str) -> int:
        return len(self._pack(split).split(split))

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, Targets]:
        return self.part_of_batch(indices, generator, slice(0, len(indices)))

    def part_of_batch(
        self, indices: torch.Tensor, generator: torch.Generator, rows: slice
    ) -> tuple[torch.Tensor, Targets]:
        part_of = len(indices), rows
        images, labels = self._load(indices[rows], self.config.augmentation, generator, part_of)
        return scaled(images, self._shown), self._targets(labels)

    def build_model(self) -> nn.Module:
        model: System = SYSTEMS[self.config.system](self.config, self._statistics)
        # twice as fast as NCHW on CPU for these networks, and what tensor cores want
        return model.to(memory_format=torch.channels_last)

    def shared_parameters(self, model: nn.Module) -> list[nn.Parameter] | None:
        return model.shared_parameters()  # type: ignore[operator]

    def losses(self, model: nn.Module, batch: tuple[torch.Tensor, Targets]) -> dict[str, torch.Tensor]:
        images, targets = batch
        return model.losses(model(images), targets)  # type: ignore[operator]

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return self._score(model, split).compute()

    def sample_scores(self, model: nn.Module, split: str) -> dict[str, SampleScores]:
        """NME in its three yaw bins and MAE, image by image."""
        return self._score(model, split).samples()

    def example(self) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        """The model with random weights, and an image (1, 3, S, S). Rendered faces need not be there for it."""
        config = self.config
        if isinstance(config.data, SyntheticData):
            statistics = FaceStatistics.blank(config.labels, config.data.image_size, config.points or 68, DENSE_POINTS)
        else:
            self.prepare()
            statistics = self._statistics
        model = SYSTEMS[config.system](type(config).model_validate(without_pretrained(config.tree())), statistics)
        return model.to(memory_format=torch.channels_last), (torch.zeros(1, 3, self.image_size, self.image_size),)

    def trivial_metrics(self, split: str) -> dict[str, float]:
        """The mean landmarks and mean angles of the training split, for every face."""
        mean = mean_face(self._pack("train"), "train", self.image_size, self.config.points)
        return score_split(mean.repeated(self.size(split)), self._pack(split), split, self.image_size).compute()

    def figures(self, model: nn.Module, split: str, folder: Path) -> dict[str, Path]:
        """The cumulative error distribution, and the worst, middle and best faces, for the report of a study."""
        # drawing and measuring import more than training needs
        from mtlsearch.faces.evaluation.checkpoint_evaluation import evaluate_system
        from mtlsearch.faces.evaluation.figures import save_figures

        assert isinstance(model, System)
        loaded = LoadedSystem(self.config, model, self.image_size, 0, {})
        evaluation = evaluate_system(loaded, self._pack(split), split, self._pack("train"))
        save_figures(evaluation, self._pack(split), self.image_size, folder, {})
        titles = {
            "ced": "Images at or below each NME",
            "worst": "The worst: true landmarks green, predicted orange",
            "median": "The middle",
            "best": "The best",
        }
        return {title: folder / f"{name}.png" for name, title in titles.items()}

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return self.config.data.image_size or self._pack("train").image_size

    @cached_property
    def _stored_labels(self) -> tuple[str, ...]:
        """What is read of the training pack for the labels that the system learns from."""
        asked, stored = self.config.labels, self._pack("train").split("train").labels
        if stored["landmarks"].shape[1] == 21:  # the hidden ones have no coordinates, so no system may learn them
            asked = tuple(dict.fromkeys((*asked, "visible")))
        if "dense" not in asked or "dense" in stored:
            return asked
        return tuple(dict.fromkeys([name for name in asked if name != "dense"] + list(SOURCES)))

    def _score(self, model: nn.Module, split: str) -> FaceScores:
        prediction = predict_split(model, self._images(split), self._pack(split), self.image_size, self._shown)
        return score_split(prediction, self._pack(split), split, self.image_size)

    def _pack(self, split: str) -> Pack:
        if not self._packs:
            raise RuntimeError("prepare() comes before anything else")
        return self._packs[split]

    def _pose_limit(self, split: str) -> float | None:
        return self._pack(split).manifest.get("pose_limit")

    def _check(self) -> None:
        """Raises InputError where the packs cannot serve the system or the metrics."""
        train = self._packs["train"]
        if missing := self._missing(train):
            raise InputError(
                f"data.train: {train.folder} ({train.source}) cannot train this {self.config.system} system, which "
                f"also needs {' and '.join(missing)}; docs/data.md says which data sets have what"
            )
        if train.counts["train"] < 2:
            raise InputError(f"data.train: {train.folder} has one training sample; learning takes two or more")
        for split in ("val", "test"):
            bins = yaw_bin(self._packs[split].split(split).labels["angles"][:, 1])
            counts = [int((bins == index).sum()) for index in range(len(YAW_BINS) + 1)]
            if not all(counts):
                raise InputError(
                    f"data: the {split} split has {counts} faces in the yaw bins 0-30, 30-60 and above 60 "
                    f"degrees, and the published NME is the mean over all three; give it more images"
                )

    def _missing(self, train: Pack) -> list[str]:
        """What the system learns from and a training pack does not have, in words."""
        labels = train.split("train").labels
        missing = []
        if self.config.needs_depth and labels["landmarks"].shape[1:] != (68, 3):
            missing.append("68 landmarks in 3D")
        if not np.isfinite(labels["angles"]).all():
            missing.append("all angles")
        if "dense" in self.config.labels and "dense" not in labels and any(name not in labels for name in SOURCES):
            missing.append("dense points")
        if "shape" in self.config.labels:
            if any(name not in labels for name in _PARAMETERS):
                missing.append("the morphable model's parameters")
            elif train.basis is None:
                missing.append("the basis of the parameters (pack it with --basis)")
        return missing

    def _images(self, split: str) -> DeviceSplit:
        """A split on the device, with the labels that training reads of its own."""
        if split not in self._splits:
            names = self._stored_labels if split == "train" else ()
            self._splits[split] = DeviceSplit(self._pack(split).split(split), self._device, names)
        return self._splits[split]

    def _load(
        self,
        rows: torch.Tensor,
        augmentation: Augmentation,
        generator: torch.Generator | None = None,
        part_of: tuple[int, slice] | None = None,
    ) -> tuple[torch.Tensor, Labels]:
        """Rows of the training split as the network sees them, and the labels that it learns from, on the device."""
        pack = self._pack("train")
        stored, labels = self._images("train").batch(rows)
        images, moved = augment(
            stored,
            labels,
            augmentation,
            pack.image_size,
            self.image_size,
            generator,
            mirror=self._mirror,
            dense_flip=pack.dense_flip,
            part_of=part_of,
        )
        return images.contiguous(memory_format=torch.channels_last), moved

    @cached_property
    def _mirror(self) -> CoefficientMirror | None:
        basis = self._pack("train").basis
        return None if basis is None else mirror_of(basis)

    def _targets_of(self, split: str) -> Targets:
        """Targets of a split, or of rows spread over a large one, in the pixels of its central crop."""
        pack, count = self._pack(split), self.size(split)
        most = _DENSE_STATISTICS if "dense" in self.config.labels else _STATISTICS
        rows = np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
        stored = pack.split(split).labels
        labels = {name: torch.from_numpy(stored[name][rows]) for name in self._stored_labels}
        crop = centre_crop(pack.stored_size, pack.image_size, self.image_size)
        for name in ("landmarks", "dense"):
            if name in labels:
                labels[name] = geometry.transform_points(labels[name].double(), crop)
        if "pose" in labels:
            labels["pose"] = geometry.rotate_pose(labels["pose"].double(), crop, pack.stored_size, self.image_size)
        return self._targets(labels)

    def _measure(self) -> FaceStatistics:
        basis = self._pack("train").basis
        known = None
        if basis is not None:
            modes = np.concatenate([basis.shape, basis.expression], axis=2)
            known = ModelBasis(torch.from_numpy(basis.mean).float(), torch.from_numpy(modes).float())
        return FaceStatistics(self.image_size, self._targets_of("train"), known)

    def _targets(self, labels: Labels) -> Targets:
        """Labels of a batch, in pixels of the network's input, as the system's targets."""
        asked = self.config.labels
        dense = None
        if "dense" in asked:
            dense = labels["dense"] if "dense" in labels else dense_of(labels, self.image_size)
        return Targets(
            landmarks=labels["landmarks"].float(),
            angles=labels["angles"].float(),
            visible=labels.get("visible"),
            parameters=torch.cat([labels[name] for name in _PARAMETERS], 1).float() if "shape" in asked else None,
            dense=None if dense is None else dense.float(),
        )
