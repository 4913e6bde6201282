"""Packed face crops: one memory-mapped uint8 array and one labels file per split, under a manifest with checksums.

    <folder>/manifest.json
    <folder>/train.images.npy   (N, H, H, 3) uint8 RGB
    <folder>/train.labels.npz   named arrays, no pickles; the table below
    <folder>/basis.npz          of real data with parameters: the 68 rows of the model they belong to
    <folder>/dense.npz          of data with dense points: flip (D,), the permutation that mirrors them
    … the same for val and test

| label | shape per sample | what |
| --- | --- | --- |
| landmarks | (K, 2 or 3) float32 | pixels of the stored image |
| visible | (K,) bool | |
| angles | (3,) float32 | degrees: pitch, yaw, roll as the data set has them; NaN where it does not say |
| pose, shape, expression | (12,), (40,), (10,) float32 | of the morphable model; only where the data set has them |
| dense | (D, 3) float32 | points of the whole face, the 68 landmarks first; only where the data set has them |
| box | (4,) float32 | stored pixels; √(w·h) normalises the NME. Synthetic faces have none: it is the landmarks' box |
| crop | (2, 3) float64 | pixels of the original photograph to pixels of the stored image; not for synthetic faces |
| name | str | of the sample in its data set; not for synthetic faces |

A pack appears whole or not at all, under a lock, so that processes that start together pack once and the others wait
and open; `pack_writer` says how.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from platformdirs import user_cache_dir

from mtlsearch.errors import InputError
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, SHAPE_MODES, LandmarkBasis, morphable_model
from mtlsearch.faces.packs.checks import SYNTHETIC, check_facts, label_fault
from mtlsearch.faces.packs.safe_files import load_npz
from mtlsearch.faces.packs.writer import FORMAT_VERSION, MANIFEST_FILE, PackPlan, SplitPlan, checksum, write_pack
from mtlsearch.faces.rendering.synthetic import GENERATOR_VERSION, LABELS, SPLITS, SyntheticRecipe, render_sample
from mtlsearch.training.environment import available_cpus
from mtlsearch.training.problem import Progress

CACHE_VARIABLE = "MTLSEARCH_CACHE"
BASIS_FILE = "basis.npz"
DENSE_FILE = "dense.npz"
_MANIFEST_LIMIT = 1 << 24
_LABEL_BYTES = 16384  # of one face, ten times what any has


@dataclass(frozen=True)
class PackedSplit:
    """One split: images (N, H, H, 3) uint8 RGB, read-only memory map; labels: name -> array (N, …)."""

    images: npt.NDArray[np.uint8]
    labels: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.images)


class Pack:
    """An opened pack. Get one from `open_pack` or `ensure_pack`."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._splits: dict[str, PackedSplit] = {}

    def __repr__(self) -> str:
        return f"Pack({str(self.folder)!r}, {self.source}, {self.counts}, image_size={self.image_size})"

    @property
    def source(self) -> str:
        """The name of the data set, or `SYNTHETIC`; of faces that were exported and packed again, what they are."""
        return str(self.manifest["source"])

    @property
    def rendered(self) -> bool:
        """Whether these faces are rendered, be it by way of a published data set's layout."""
        return self.source == SYNTHETIC or bool(self.manifest.get("rendered"))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Images per split."""
        return {name: int(split["count"]) for name, split in self.manifest["splits"].items()}

    @property
    def image_size(self) -> int:
        """Side of the nominal crop, the centre of the stored image, in pixels."""
        return int(self.manifest["image_size"])

    @property
    def stored_size(self) -> int:
        """Side of the stored images in pixels."""
        return int(self.manifest["stored_size"])

    @property
    def recipe(self) -> SyntheticRecipe:
        """The recipe that a synthetic pack was rendered from."""
        return SyntheticRecipe.from_dict(self.manifest["recipe"])

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name the pack's content: they follow from its manifest, and so from every checksum."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def dense_flip(self) -> tuple[int, ...] | None:
        """The permutation that puts the dense points of a mirrored face back in order; None where the pack has none."""
        if DENSE_FILE not in self.manifest["files"]:
            return None
        flip = load_npz(self.folder / DENSE_FILE, 1 << 20).get("flip")
        if flip is None or flip.ndim != 1 or flip.dtype.kind != "i" or len(flip) < 68:
            raise _damaged(self.folder, DENSE_FILE, "not the mirror permutation of dense points")
        if ((flip < 0) | (flip >= len(flip))).any() or (flip[flip] != np.arange(len(flip))).any():
            raise _damaged(self.folder, DENSE_FILE, "its permutation is no mirror: done twice it must give all back")
        return tuple(int(index) for index in flip)

    @cached_property
    def basis(self) -> LandmarkBasis | None:
        """The 68 rows of the morphable model that the parameters belong to; None where the pack has no parameters."""
        if self.source == SYNTHETIC:
            return morphable_model().landmark_basis()
        path = self.folder / BASIS_FILE
        if BASIS_FILE not in self.manifest["files"]:
            return None
        arrays = load_npz(path, 1 << 20)
        shapes = {"mean": (68, 3), "shape": (68, 3, SHAPE_MODES), "expression": (68, 3, EXPRESSION_MODES)}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
                raise _damaged(self.folder, BASIS_FILE, f"{name} must be finite numbers of shape {shape}")
        return LandmarkBasis(arrays["mean"], arrays["shape"], arrays["expression"])

    def split(self, name: str) -> PackedSplit:
        """A split by name; images stay on disk until they are read, labels are loaded."""
        if name not in self.counts:
            raise InputError(f"{self.folder} has no split {name!r} (it has: {', '.join(self.counts)})")
        if name not in self._splits:
            images = np.load(self.folder / f"{name}.images.npy", mmap_mode="r", allow_pickle=False)
            file = f"{name}.labels.npz"
            try:
                labels = load_npz(self.folder / file, (1 << 20) + _LABEL_BYTES * len(images))
            except InputError as error:
                raise _damaged(self.folder, file, f"not the labels of {len(images):,} faces ({error})") from error
            if fault := label_fault(labels, len(images)):
                raise _damaged(self.folder, file, fault)
            self._splits[name] = PackedSplit(images, labels)
        return self._splits[name]


def _damaged(folder: Path, file: str, what: str) -> InputError:
    return InputError(f"{folder / file}: {what}. Delete the folder {folder} and make it again.")


class Listing(NamedTuple):
    """What a pack's manifest says, checked: side of the images, images per split, (name, bytes, sha256) of files."""

    manifest: dict[str, Any]
    stored_size: int
    counts: dict[str, int]
    files: list[tuple[str, int, str]]


def read_listing(folder: Path) -> Listing:
    """The manifest of a pack's folder. Raises InputError where it is none, or one that would lead elsewhere."""
    path = folder / MANIFEST_FILE
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise _damaged(folder, path.name, f"larger than {_MANIFEST_LIMIT} bytes, so not a manifest")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {manifest['format_version']!r}, this mtlsearch reads {FORMAT_VERSION}. "
                f"Delete the folder {folder} and make it again."
            )
        size = int(manifest["stored_size"])
        counts = {name: int(split["count"]) for name, split in manifest["splits"].items()}
        listed = {name: set(split["files"]) for name, split in manifest["splits"].items()}
        groups = [manifest["files"], *(split["files"] for split in manifest["splits"].values())]
        files = [(file, int(facts["bytes"]), facts["sha256"]) for group in groups for file, facts in group.items()]
        check_facts(manifest, size)
    except OSError as error:
        raise InputError(
            f"{folder} is no pack of faces: cannot read {path.name} ({error.strerror}). Give a folder that "
            "mtlsearch packed, or delete this one and run again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(folder, path.name, f"not a readable manifest ({type(error).__name__}: {error})") from error

    for name, found in listed.items():
        if found != {f"{name}.images.npy", f"{name}.labels.npz"} or Path(name).name != name:
            raise _damaged(folder, path.name, f"lists unexpected files for split {name!r}")
    if set(manifest["files"]) - {BASIS_FILE, DENSE_FILE}:
        raise _damaged(folder, path.name, "lists unexpected files")
    return Listing(manifest, size, counts, files)


def open_pack(folder: str | Path, verify: bool = False) -> Pack:
    """Open a pack after checking that its files are there at their full size and of the stated shapes.

    Labels are checked for their names, shapes, types and finite numbers when their split is asked for.
    verify: compare every file's checksum too (reads everything). Raises InputError, naming the file, what was expected,
    what was found and what to do.
    """
    folder = Path(folder)
    manifest, size, counts, files = read_listing(folder)
    for file, expected, sha256 in files:
        try:
            length = (folder / file).stat().st_size
        except OSError as error:
            raise _damaged(folder, file, f"expected {expected} bytes, the file is missing") from error
        if length != expected:
            raise _damaged(folder, file, f"expected {expected} bytes, found {length}")
        if verify and checksum(folder / file) != sha256:
            raise _damaged(folder, file, "its content differs from its checksum")
    for name, count in counts.items():
        shape = (count, size, size, 3)
        try:
            images = np.load(folder / f"{name}.images.npy", mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise _damaged(folder, f"{name}.images.npy", f"not a .npy file ({error})") from error
        if images.shape != shape or images.dtype != np.uint8:
            raise _damaged(folder, f"{name}.images.npy", f"expected {shape} uint8, found {images.shape} {images.dtype}")
    return Pack(folder, manifest)


def default_root() -> Path:
    """Where packs are cached: the folder that MTLSEARCH_CACHE names, else the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(user_cache_dir("mtlsearch"))


def pack_folder(recipe: SyntheticRecipe, root: str | Path | None = None) -> Path:
    """The folder of a recipe's pack, whether it exists or not."""
    base = Path(root) if root is not None else default_root()
    return base / f"faces-{recipe.image_size}px-{recipe.digest()}"


@contextmanager
def pack_lock(folder: Path) -> Iterator[None]:
    """Held while a pack or an export is made at `folder`. InputError where nothing can be written beside it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {folder.parent}: {error.strerror}. Choose a folder that can be written; packs without a "
            f"folder of their own go where {CACHE_VARIABLE} says."
        ) from error
    with FileLock(folder.parent / f"{folder.name}.lock"):
        try:
            yield
        except OSError as error:
            raise InputError(
                f"writing {folder} failed: {error.strerror or error}. What was done lies beside it, in a folder "
                f"whose name goes on with .partial, and is continued by the next run; delete that to free its space."
            ) from error


def ensure_pack(
    recipe: SyntheticRecipe,
    root: str | Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    folder: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Pack:
    """The pack of a recipe, rendered now if it is not there yet.

    root: default `default_root()`; folder: the pack's own place, in the root's stead; progress(done, total): called in
    the calling thread as images are rendered, not at all when the pack exists; workers: threads, default all CPUs of
    this process; say: takes a line when the files are summed up. Any number of processes may call this together, and a
    call after one that was interrupted goes on from where it was. Raises InputError when the folder cannot be written,
    the disk is too small, or what is there is damaged or another pack.
    """
    place = pack_folder(recipe, root) if folder is None else Path(folder)
    if not place.exists():
        with pack_lock(place):
            if not place.exists():
                write_pack(place, _plan(recipe), progress, workers or available_cpus(), False, say)
    pack = open_pack(place)
    if pack.source != SYNTHETIC or pack.recipe != recipe:
        raise InputError(f"{place} holds another pack, {pack}; choose another folder or delete it")
    return pack


def _plan(recipe: SyntheticRecipe) -> PackPlan:
    def split_plan(split: str) -> SplitPlan:
        def read(index: int) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
            sample = render_sample(recipe, split, index)
            return sample.image, {name: getattr(sample, name) for name in LABELS}

        return SplitPlan(recipe.count(split), LABELS, read)

    facts = {
        "source": SYNTHETIC,
        "generator_version": GENERATOR_VERSION,
        "recipe": recipe.to_dict(),
        "image_size": recipe.image_size,
        "stored_size": recipe.stored_size,
    }
    return PackPlan(facts, recipe.stored_size, {split: split_plan(split) for split in SPLITS}, {})
