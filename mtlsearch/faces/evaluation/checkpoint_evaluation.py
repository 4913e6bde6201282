"""A checkpoint scored on a pack: its figures, those of a constant prediction, and what the network costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.checkpoints import LoadedSystem
from mtlsearch.faces.evaluation.accumulator import FaceScores
from mtlsearch.faces.evaluation.profiling import active_parameter_count, images_per_second
from mtlsearch.faces.evaluation.splits import mean_face, predict_split, score_split
from mtlsearch.faces.metrics import YAW_BINS, yaw_bin
from mtlsearch.faces.packs.batches import DeviceSplit
from mtlsearch.faces.packs.checks import SYNTHETIC
from mtlsearch.faces.packs.pack import Pack
from mtlsearch.faces.targets import Prediction
from mtlsearch.training.costs import multiply_accumulates, parameter_count

SPEED_BATCHES = (1, 32)


@dataclass(frozen=True)
class Cost:
    """Of a network: parameters, and those that its outputs depend on; multiply–accumulates of one image; images a
    second at each batch size, on the named device."""

    parameters: int
    active_parameters: int
    macs: int
    images_per_second: dict[int, float]
    device: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A checkpoint's figures on one split of a pack.

    source: name of the data set; rendered: whether its faces are; published: images that its authors published, where
    that is one known number; points: landmarks that were compared; bins: images with |yaw| in [0, 30], (30, 60] and
    above; constant: the metrics of the mean face of `constant_of`.
    """

    source: str
    rendered: bool
    split: str
    count: int
    published: int | None
    points: int
    bins: tuple[int, ...]
    pose_count: int
    metrics: dict[str, float]
    constant: dict[str, float]
    constant_of: str
    cost: Cost
    prediction: Prediction
    scores: FaceScores

    @property
    def whole(self) -> bool:
        """Whether these are all the images that the authors of the data set published, with all their landmarks."""
        return self.count == self.published and self.all_points

    @property
    def all_points(self) -> bool:
        """Whether all the landmarks were compared that the published figures of the data set are about."""
        return self.source != "aflw2000" or self.points == 68

    @property
    def data(self) -> str:
        """The data set in a few words, for a table's row."""
        if self.source == SYNTHETIC:
            return "synthetic"
        of = "" if self.published in (None, self.count) else f" ({self.count:,} of {self.published:,})"
        return self.source + of


def evaluate_system(loaded: LoadedSystem, pack: Pack, split: str, mean_of: Pack | None = None) -> Evaluation:
    """Scores a system on a split of a pack, and measures what it costs.

    mean_of: the pack whose training split gives the constant prediction; by default the scored faces themselves give
    it. Raises InputError for a split without images.
    """
    packed = pack.split(split)
    if not len(packed):
        raise InputError(f"split {split!r} of {pack.folder} has no images")
    model, size = loaded.model, loaded.image_size
    device = next(model.parameters()).device
    with torch.inference_mode():
        prediction = predict_split(model, DeviceSplit(packed, device, ()), pack, size)
    scores = score_split(prediction, pack, split, size)
    points, count = prediction.landmarks.shape[1], len(packed)
    mean = mean_face(pack, split, size, points) if mean_of is None else mean_face(mean_of, "train", size, points)
    constant = mean.repeated(count)
    bins = yaw_bin(packed.labels["angles"][:, 1])
    return Evaluation(
        source=pack.source,
        rendered=pack.rendered,
        split=split,
        count=count,
        published=pack.manifest.get("published"),
        points=min(points, packed.labels["landmarks"].shape[1]),
        bins=tuple(int((bins == index).sum()) for index in range(len(YAW_BINS) + 1)),
        pose_count=scores.pose_count,
        metrics=scores.compute(),
        constant=score_split(constant, pack, split, size).compute(),
        constant_of=f"the {split} split itself" if mean_of is None else "the training split",
        cost=measure_cost(loaded),
        prediction=prediction,
        scores=scores,
    )


def measure_cost(loaded: LoadedSystem) -> Cost:
    """On the device that the system is on, with torch's present number of threads."""
    model, size = loaded.model, loaded.image_size
    device = next(model.parameters()).device
    images = torch.randn(max(SPEED_BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    return Cost(
        parameters=parameter_count(model),
        active_parameters=active_parameter_count(model, images[:1]),
        macs=multiply_accumulates(model, images[:1]),
        images_per_second={batch: images_per_second(model, images[:batch]) for batch in SPEED_BATCHES},
        device=f"CPU, {threads} thread{'s' if threads > 1 else ''}"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device),
    )
