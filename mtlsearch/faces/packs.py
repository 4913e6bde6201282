"""Packed face crops: one memory-mapped uint8 array and one labels file per split, under a manifest with checksums.

    <folder>/manifest.json
    <folder>/train.images.npy   (N, H, H, 3) uint8 RGB
    <folder>/train.labels.npz   named arrays, no pickles; see `synthetic.LABELS`
    … the same for val and test

A pack appears whole or not at all: it is written to a temporary folder beside its place and renamed, under a lock, so
that processes that start together pack once and the others wait and open.

Rendering runs in threads: the work is in numba and OpenCV, which release the interpreter's lock, and threads need no
pickling, no `__main__` guard and no second copy of the model, whoever the caller is: script, pytest or Ray actor.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from platformdirs import user_cache_dir

from mtlsearch.errors import InputError
from mtlsearch.faces.synthetic import GENERATOR_VERSION, LABELS, SPLITS, SyntheticRecipe, render_sample
from mtlsearch.training.environment import available_cpus
from mtlsearch.training.problem import Progress

FORMAT_VERSION = 1
CACHE_VARIABLE = "MTLSEARCH_CACHE"
_CHUNK = 32  # images a task: small enough for a smooth progress bar, large enough to hide its cost
_MANIFEST_LIMIT = 1 << 20


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
        return f"Pack({str(self.folder)!r}, {self.counts}, image_size={self.image_size})"

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

    def split(self, name: str) -> PackedSplit:
        """A split by name; images stay on disk until they are read, labels are loaded."""
        if name not in self.counts:
            raise InputError(f"{self.folder} has no split {name!r} (it has: {', '.join(self.counts)})")
        if name not in self._splits:
            images = np.load(self.folder / f"{name}.images.npy", mmap_mode="r", allow_pickle=False)
            try:
                with np.load(self.folder / f"{name}.labels.npz", allow_pickle=False) as stored:
                    labels = {key: stored[key] for key in stored.files}
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise _damaged(self.folder, f"{name}.labels.npz", f"not a readable .npz file ({error})") from error
            for key, array in labels.items():
                if len(array) != len(images):
                    raise _damaged(self.folder, f"{name}.labels.npz", f"{key} has {len(array)} rows, not {len(images)}")
            self._splits[name] = PackedSplit(images, labels)
        return self._splits[name]


def _damaged(folder: Path, file: str, what: str) -> InputError:
    return InputError(f"{folder / file}: {what}. Delete the folder {folder} and run again, it is rendered anew.")


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def open_pack(folder: str | Path, verify: bool = False) -> Pack:
    """Open a pack after checking that its files are there at their full size and of the stated shapes.

    verify: compare every file's checksum too (reads everything). Raises InputError, naming the file, what was expected,
    what was found and what to do.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise _damaged(folder, path.name, f"larger than {_MANIFEST_LIMIT} bytes, so not a manifest")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path}: format version {manifest['format_version']!r}, this mtlsearch reads "
                f"{FORMAT_VERSION}. "
                f"Delete the folder {folder} and run again, it is rendered anew."
            )
        size = int(manifest["stored_size"])
        splits = {
            name: (
                int(split["count"]),
                [(file, int(fact["bytes"]), fact["sha256"]) for file, fact in split["files"].items()],
            )
            for name, split in manifest["splits"].items()
        }
    except OSError as error:
        raise InputError(
            f"{folder} is no pack of faces: cannot read {path.name} ({error.strerror}). Give a folder that "
            "mtlsearch packed, or delete this one and run again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(folder, path.name, f"not a readable manifest ({type(error).__name__}: {error})") from error

    for name, (count, files) in splits.items():
        if {file for file, _, _ in files} != {f"{name}.images.npy", f"{name}.labels.npz"}:
            raise _damaged(folder, path.name, f"lists unexpected files for split {name!r}")
        for file, expected, sha256 in files:
            try:
                found = (folder / file).stat().st_size
            except OSError as error:
                raise _damaged(folder, file, f"expected {expected} bytes, the file is missing") from error
            if found != expected:
                raise _damaged(folder, file, f"expected {expected} bytes, found {found}")
            if verify and _checksum(folder / file) != sha256:
                raise _damaged(folder, file, "its content differs from its checksum")
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


def ensure_pack(
    recipe: SyntheticRecipe,
    root: str | Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Pack:
    """The pack of a recipe, rendered now if it is not there yet.

    root: default `default_root()`; progress(done, total): called in the calling thread as images are rendered, not at
    all when the pack exists; workers: threads, default all CPUs of this process. Any number of processes may call this
    together. Raises InputError when the folder cannot be written, the disk is too small, or an existing pack is
    damaged.
    """
    folder = pack_folder(recipe, root)
    if folder.exists():
        return open_pack(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write face packs to {folder.parent}: {error.strerror}. Set {CACHE_VARIABLE} to a "
            f"folder that "
            "can be written."
        ) from error
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if not folder.exists():
            for left in folder.parent.glob(f"{folder.name}.tmp-*"):  # of a process that was killed: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            _render(recipe, folder, progress, workers or available_cpus())
    return open_pack(folder)


def _needed_bytes(recipe: SyntheticRecipe) -> int:
    labels = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in LABELS.values())
    return sum(recipe.count(split) for split in SPLITS) * (recipe.stored_size**2 * 3 + labels) + 65536


def _render(recipe: SyntheticRecipe, folder: Path, progress: Progress | None, workers: int) -> None:
    needed, free = _needed_bytes(recipe), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"packing these faces needs {needed / 1e6:,.0f} MB, {folder.parent} has {free / 1e6:,.0f} "
            f"MB free. Free "
            f"some space, render fewer or smaller images, or set {CACHE_VARIABLE} to another disk."
        )
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        total = sum(recipe.count(split) for split in SPLITS)
        done = 0
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "source": "synthetic",
            "generator_version": GENERATOR_VERSION,
            "recipe": recipe.to_dict(),
            "image_size": recipe.image_size,
            "stored_size": recipe.stored_size,
            "splits": {},
        }
        for split in SPLITS:
            count, size = recipe.count(split), recipe.stored_size
            image_file, label_file = scratch / f"{split}.images.npy", scratch / f"{split}.labels.npz"
            if count:
                images: npt.NDArray[np.uint8] = np.lib.format.open_memmap(
                    image_file, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)
                )
            else:  # an empty file cannot be mapped
                images = np.empty((0, size, size, 3), np.uint8)
                np.save(image_file, images)
            labels = {name: np.empty((count, *shape), kind) for name, (shape, kind) in LABELS.items()}

            def fill(start: int, stop: int, split=split, images=images, labels=labels) -> int:  # type: ignore[no-untyped-def]
                for i in range(start, stop):
                    sample = render_sample(recipe, split, i)
                    images[i] = sample.image
                    for name, array in labels.items():
                        array[i] = getattr(sample, name)
                return stop - start

            first = min(count, 1)
            fill(0, first)  # compiles the kernels in one thread, before the others need them
            pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="render")
            try:
                tasks = [pool.submit(fill, i, min(i + _CHUNK, count)) for i in range(first, count, _CHUNK)]
                done += first
                for task in as_completed(tasks):
                    done += task.result()
                    if progress is not None:
                        progress(done, total)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(images, np.memmap):
                images.flush()
            np.savez(label_file, **labels)  # type: ignore[arg-type]  # newer stubs know allow_pickle
            manifest["splits"][split] = {
                "count": count,
                "files": {
                    file.name: {"bytes": file.stat().st_size, "sha256": _checksum(file)}
                    for file in (image_file, label_file)
                },
            }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp makes it private; other users of a shared cache may read
        scratch.rename(folder)
    except OSError as error:
        raise InputError(f"writing {folder} failed: {error.strerror or error}. Nothing was kept.") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(scratch, ignore_errors=True)
