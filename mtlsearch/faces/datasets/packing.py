"""Packing a published data set: crops and labels in the format of `packs`, splits that keep photographs together."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.datasets.crops import crop_affine, warp
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample
from mtlsearch.faces.geometry import rotate_pose, stored_side, transform_points
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, SHAPE_MODES
from mtlsearch.faces.packs.pack import BASIS_FILE, DENSE_FILE, Pack, default_root, open_pack, pack_lock
from mtlsearch.faces.packs.writer import FORMAT_VERSION, PackPlan, SplitPlan, digest_of, write_pack
from mtlsearch.training.environment import available_cpus
from mtlsearch.training.problem import Progress

PACK_SPLITS = ("train", "val", "test")
_TRIED = 100  # samples until the fault must be a missing file of the whole data set


@dataclass(frozen=True)
class CropSettings:
    """image_size: side of the nominal crop in pixels; margin: side of the stored image over it, so that rotations and
    shifts bring no black corners in (data sets that are published as crops have none)."""

    image_size: int = 120
    margin: float = 1.25

    def __post_init__(self) -> None:
        if not 16 <= self.image_size <= 1024:
            raise InputError(f"image size must lie in [16, 1024], got {self.image_size}")
        if not 1 <= self.margin <= 2:
            raise InputError(f"margin must lie in [1, 2], got {self.margin}")

    @property
    def stored_size(self) -> int:
        """Side of the stored image."""
        return stored_side(self.image_size, self.margin)


@dataclass(frozen=True)
class SplitSettings:
    """val_share: the share of the training photographs that becomes the validation split; test_names: the samples that
    become the test split, by name, of a data set that has no split of its own.

    Photographs are drawn by a checksum of their name, so a photograph's split depends on nothing else, and all samples
    of a photograph lie in one split.
    """

    val_share: float = 0.05
    test_names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise InputError(f"the validation share must lie in [0, 1), got {self.val_share}")

    def assign(self, dataset: FaceDataset) -> dict[str, list[int]]:
        """Split -> indices, in order."""
        unknown = self.test_names - set(dataset.names)
        if unknown:
            raise InputError(f"{len(unknown)} test names are not in {dataset}, for example {min(unknown)!r}")
        own = [dataset.split(i) for i in range(len(dataset))]
        draws = "val" not in own
        tested = {dataset.group(i) for i, name in enumerate(dataset.names) if name in self.test_names}
        splits: dict[str, list[int]] = {name: [] for name in PACK_SPLITS}
        for i, split in enumerate(own):
            group = dataset.group(i)
            if dataset.names[i] in self.test_names:
                split = "test"
            elif group in tested:
                continue  # another face of a test photograph: neither training nor validation may see it
            elif draws and split == "train" and _uniform(group) < self.val_share:
                split = "val"
            splits[split].append(i)
        return {name: indices for name, indices in splits.items() if indices}


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def read_names(path: Path) -> frozenset[str]:
    """The names in a text file, one a line; blank lines and those that begin with # do not count."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of names {path} ({error})") from error
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def pack_dataset(
    dataset: FaceDataset,
    folder: str | Path,
    crop: CropSettings | None = None,
    splits: SplitSettings | None = None,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Pack:
    """Pack a data set at `folder`, or finish a packing that was interrupted.

    skip_bad: leave samples out that are damaged or missing, and name them in the manifest; without it they raise
    InputError once everything else is read, and nothing that was read is lost. workers: threads, default all CPUs;
    say: takes a line when the files are summed up. Raises InputError when a pack of other settings, of another basis or
    of other files is at `folder`.
    """
    folder = Path(folder)
    plan = _plan(dataset, crop or CropSettings(), splits or SplitSettings())
    if not folder.exists():
        with pack_lock(folder):
            if not folder.exists():
                write_pack(folder, plan, progress, workers or available_cpus(), skip_bad, say)
    pack = open_pack(folder)
    expected = {**plan.facts, **plan.provenance}
    changed = [name for name, value in expected.items() if pack.manifest.get(name) != value]
    if changed:
        raise InputError(
            f"{folder} holds another pack: {', '.join(changed)} differ. Choose another folder, or delete that one"
        )
    return pack


def cached_pack(
    dataset: FaceDataset, crop: CropSettings, *, skip_bad: bool = False, progress: Progress | None = None
) -> Pack:
    """The pack of a data set in the cache, as its splits are published; made now if it is not there, or if the files of
    the data set have changed since. Arguments and errors as those of `pack_dataset`, and bad samples raise InputError
    without skip_bad even where the pack is there without them."""
    plan = _plan(dataset, crop, SplitSettings())
    known = {"format": FORMAT_VERSION, "root": str(dataset.root.resolve()), **plan.facts}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
    folder = default_root() / f"{dataset.name}-{plan.facts['image_size']}px-{digest}"
    with pack_lock(folder):
        if folder.exists():
            facts = open_pack(folder).manifest
            if any(facts.get(name) != value for name, value in plan.provenance.items()):
                shutil.rmtree(folder)
    pack = pack_dataset(dataset, folder, crop, SplitSettings(), skip_bad=skip_bad, progress=progress)
    if (skipped := pack.manifest["skipped"]) and not skip_bad:
        raise InputError(
            f"{len(skipped):,} samples cannot be used, the first: {skipped[0]}. --skip-bad leaves them out"
        )
    return pack


def _plan(dataset: FaceDataset, crop: CropSettings, splits: SplitSettings) -> PackPlan:
    if dataset.cropped:
        crop = CropSettings(crop.image_size, 1.0)
    first = _first_readable(dataset)
    labels: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, value in _labels(first, np.eye(2, 3), crop.stored_size).items():
        labels[name] = (value.shape, value.dtype.str)
    labels["name"] = ((), f"<U{max(map(len, dataset.names))}")
    assigned = splits.assign(dataset)
    tested = hashlib.sha256("\n".join(sorted(splits.test_names)).encode()).hexdigest() if splits.test_names else None
    facts = {
        "source": dataset.source,
        "ground_truth": dataset.ground_truth,
        "points": dataset.points,
        "pose_limit": dataset.pose_limit,
        "published": dataset.published,
        "image_size": crop.image_size,
        "stored_size": crop.stored_size,
        "split": {"val_share": splits.val_share, "test_names_sha256": tested},
        "names_sha256": hashlib.sha256("\n".join(dataset.names).encode()).hexdigest(),
    }
    if dataset.origin is not None and dataset.origin.rendered:
        facts["rendered"] = True
    stamps = dataset.stamps()
    arrays: dict[str, dict[str, npt.NDArray[Any]]] = {}
    if dataset.basis is not None and first.parameters is not None:
        basis = dataset.basis
        arrays[BASIS_FILE] = {"mean": basis.mean, "shape": basis.shape, "expression": basis.expression}
    facts["basis_sha256"] = digest_of(arrays[BASIS_FILE]) if arrays else None
    if first.dense is not None and dataset.dense_flip is not None:
        arrays[DENSE_FILE] = {"flip": dataset.dense_flip}

    def split_plan(indices: list[int]) -> SplitPlan:
        def read(i: int) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
            with _named(dataset.names[indices[i]]):
                sample = dataset[indices[i]]
                affine = crop_affine(sample.crop, crop.image_size, crop.stored_size)
                stored = _labels(sample, affine, crop.stored_size)
                for name, value in stored.items():
                    if value.shape != labels[name][0]:
                        raise InputError(
                            f"{sample.name}: {name} has shape {value.shape}, others have {labels[name][0]}"
                        )
                return warp(sample.image, affine, crop.stored_size), {**stored, "name": sample.name}

        return SplitPlan(len(indices), labels, read, stamps[indices])

    provenance = {"source_sha256": hashlib.sha256(stamps.tobytes()).hexdigest(), "left_out": dataset.left_out}
    planned = {name: split_plan(part) for name, part in assigned.items()}
    return PackPlan(facts, crop.stored_size, planned, arrays, provenance)


def _first_readable(dataset: FaceDataset) -> FaceSample:
    reason: InputError | None = None
    for index in range(min(_TRIED, len(dataset))):
        try:
            with _named(dataset.names[index]):
                return dataset[index]
        except InputError as error:
            reason = reason or error
    raise InputError(f"none of the first {index + 1} samples of {dataset} can be used, the first because: {reason}")


@contextmanager
def _named(sample: str) -> Iterator[None]:
    """The last net under the loaders: damage that none of them foresaw is a bad sample's too, and says whose."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{sample}: {type(error).__name__}: {error}") from error


def _labels(sample: FaceSample, affine: Floats, stored_size: int) -> dict[str, npt.NDArray[Any]]:
    """The labels of `packs`, but the name, in the pixels of the stored image."""
    original = np.eye(3)
    if sample.original is not None:
        original[:2] = sample.original
    labels: dict[str, npt.NDArray[Any]] = {
        "landmarks": transform_points(sample.landmarks, affine).astype(np.float32),
        "visible": sample.visible,
        "angles": sample.pose.astype(np.float32),
        "box": transform_points(sample.box.reshape(2, 2), affine).reshape(4).astype(np.float32),
        "crop": np.vstack([affine, [0, 0, 1]])[:2] @ np.linalg.inv(original),
    }
    if sample.dense is not None:
        labels["dense"] = transform_points(sample.dense, affine).astype(np.float32)
    if sample.parameters is not None:
        pose, coefficients = sample.parameters[:12], sample.parameters[12:].astype(np.float32)
        labels["pose"] = rotate_pose(pose, affine, len(sample.image), stored_size).astype(np.float32)
        labels["shape"], labels["expression"] = np.split(coefficients, [SHAPE_MODES])
        assert len(labels["expression"]) == EXPRESSION_MODES
    return labels
