"""Writing a pack: in threads, resumable, whole or not at all.

What is unfinished lies in `<folder>.partial` beside the pack's place. A chunk of samples that was written is noted in
a journal with its checksum, so a later run of the same plan goes on after it, whatever ended the first one; a different
plan starts afresh. The finished folder appears under its name by one rename.

Reading and rendering run in threads: the work is in numba, OpenCV and Pillow, which release the interpreter's lock, and
threads need no pickling, no `__main__` guard and no second copy of the model, whoever the caller is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.training.problem import Progress

FORMAT_VERSION = 2
_CHUNK = 32  # samples a task: small enough for a smooth progress bar, large enough to hide its cost
_SHOWN = 10  # bad samples that an error lists; the others are in a file

Images = npt.NDArray[np.uint8]
Read = Callable[[int], tuple[Images, Mapping[str, Any]]]


@dataclass(frozen=True)
class SplitPlan:
    """What a split is made of.

    count: samples; labels: name -> (shape per sample, dtype); read(i): the image (H, H, 3) uint8 and the labels of
    sample i, called from any thread, which raises InputError for a sample that cannot be used.
    """

    count: int
    labels: Mapping[str, tuple[tuple[int, ...], str]]
    read: Read


@dataclass(frozen=True)
class PackPlan:
    """A pack to be written. Plans of equal facts, sizes and labels are one plan, and continue each other's work.

    facts: what the manifest says beside the splits, as JSON's types; size: side of the stored images; arrays: further
    files of named arrays, by file name.
    """

    facts: Mapping[str, Any]
    size: int
    splits: Mapping[str, SplitPlan]
    arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]]

    @property
    def count(self) -> int:
        return sum(split.count for split in self.splits.values())

    @property
    def needed_bytes(self) -> int:
        """Disk space, nearly."""
        labels = sum(
            split.count * sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in split.labels.values())
            for split in self.splits.values()
        )
        arrays = sum(array.nbytes for file in self.arrays.values() for array in file.values())
        return self.count * self.size**2 * 3 + 2 * labels + arrays + 65536

    def describe(self) -> dict[str, Any]:
        """Everything that decides what a chunk holds, apart from the source files themselves."""
        splits = {name: {"count": split.count, "labels": dict(split.labels)} for name, split in self.splits.items()}
        digests = {file: _digest(arrays) for file, arrays in self.arrays.items()}
        plan = {"facts": dict(self.facts), "size": self.size, "chunk": _CHUNK, "splits": splits, "arrays": digests}
        return json.loads(json.dumps(plan))


def write_pack(
    folder: Path, plan: PackPlan, progress: Progress | None = None, workers: int = 1, skip_bad: bool = False
) -> None:
    """Write a pack, or finish one that was begun; the caller holds its lock.

    skip_bad: leave samples out that cannot be used, and list them in the manifest. Without it they raise InputError
    after everything else is written, so that the list is whole and a second run with skip_bad has little left to do.
    Raises InputError too when the disk is too small.
    """
    scratch = folder.with_name(f"{folder.name}.partial")
    _begin(scratch, plan)
    bad: dict[str, dict[int, str]] = {}
    done = 0
    for name, split in plan.splits.items():
        writer = _SplitWriter(scratch, name, split, plan.size)
        for finished, failed in writer.run(workers):
            done += finished
            bad.setdefault(name, {}).update(failed)
            if progress is not None:
                progress(done, plan.count)
        writer.close()
    messages = [f"{name}: {message}" for name, failed in bad.items() for _, message in sorted(failed.items())]
    if messages and not skip_bad:
        raise InputError(_list_bad(folder, messages, plan.count))
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, **plan.facts, "skipped": messages, "splits": {}}
    for name, split in plan.splits.items():
        kept = np.array([i for i in range(split.count) if i not in bad.get(name, {})], np.int64)
        manifest["splits"][name] = _finish_split(scratch, name, split, kept)
    for file, arrays in plan.arrays.items():
        np.savez(scratch / file, **arrays)  # type: ignore[arg-type]  # newer stubs know allow_pickle
    manifest["files"] = {file: file_facts(scratch / file) for file in plan.arrays}
    (scratch / "plan.json").unlink()
    (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    scratch.rename(folder)
    _bad_list(folder).unlink(missing_ok=True)


def file_facts(path: Path) -> dict[str, Any]:
    """What the manifest keeps of a file: its size and its checksum."""
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _begin(scratch: Path, plan: PackPlan) -> None:
    """A scratch folder that holds this plan's work so far, or nothing."""
    path = scratch / "plan.json"
    try:
        same = json.loads(path.read_text(encoding="utf-8")) == plan.describe()
    except (OSError, ValueError):
        same = False
    if same:
        return
    shutil.rmtree(scratch, ignore_errors=True)
    needed, free = plan.needed_bytes, shutil.disk_usage(scratch.parent).free
    if needed > free:
        raise InputError(
            f"packing these faces needs {needed / 1e6:,.0f} MB, {scratch.parent} has {free / 1e6:,.0f} MB free. Free "
            f"some space, pack fewer or smaller images, or choose another disk."
        )
    scratch.mkdir()
    path.write_text(json.dumps(plan.describe()), encoding="utf-8")


def _bad_list(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.bad.txt")


def _list_bad(folder: Path, messages: list[str], count: int) -> str:
    report = _bad_list(folder)
    report.write_text("\n".join(messages) + "\n", encoding="utf-8")
    shown = [f"  {message}" for message in messages[:_SHOWN]]
    if len(messages) > _SHOWN:
        shown.append(f"  and {len(messages) - _SHOWN:,} more")
    return "\n".join(
        [
            f"{len(messages):,} of {count:,} samples cannot be used (all are listed in {report}):",
            *shown,
            "Mend them, or leave them out with --skip-bad; the others are kept, and the next run goes on from there.",
        ]
    )


class _SplitWriter:
    """One split's arrays in the scratch folder, filled chunk by chunk, and the journal of the chunks that are there."""

    def __init__(self, scratch: Path, name: str, split: SplitPlan, size: int) -> None:
        self._split = split
        shape = (split.count, size, size, 3)
        self._arrays = {"": _mapped(scratch / f"{name}.images.npy", shape, "uint8")}
        for label, (each, kind) in split.labels.items():
            self._arrays[label] = _mapped(scratch / f"{name}.label.{label}.npy", (split.count, *each), kind)
        self._journal = scratch / f"{name}.journal"

    def run(self, workers: int) -> Iterator[tuple[int, dict[int, str]]]:
        """Yields, in the calling thread, how many samples were finished and which of them cannot be used."""
        finished = self._finished()
        if finished:
            yield sum(self._length(start) for start in finished), {}
        waiting = [start for start in range(0, self._split.count, _CHUNK) if start not in finished]
        pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="pack")
        try:
            # the first chunk alone: it compiles the kernels in one thread, before the others need them
            for some in (waiting[:1], waiting[1:]):
                for task in as_completed([pool.submit(self._fill, start) for start in some]):
                    start, bad = task.result()
                    if not bad:
                        self._note(start)
                    yield self._length(start), bad
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()

    def _length(self, start: int) -> int:
        return min(_CHUNK, self._split.count - start)

    def _fill(self, start: int) -> tuple[int, dict[int, str]]:
        bad = {}
        for i in range(start, start + self._length(start)):
            try:
                image, labels = self._split.read(i)
            except InputError as error:
                bad[i] = str(error)
                continue
            self._arrays[""][i] = image
            for name in self._split.labels:
                self._arrays[name][i] = labels[name]
        return start, bad

    def _note(self, start: int) -> None:
        with self._journal.open("a", encoding="ascii") as journal:
            journal.write(f"{start} {self._checksum(start)}\n")

    def _checksum(self, start: int) -> int:
        value = 0
        for array in self._arrays.values():
            value = zlib.crc32(np.ascontiguousarray(array[start : start + _CHUNK]).view(np.uint8).data, value)
        return value

    def _finished(self) -> set[int]:
        """Chunks of an earlier run whose content is what was noted: a power cut can lose one without the other."""
        try:
            lines = self._journal.read_text(encoding="ascii").splitlines()
        except OSError:
            return set()
        noted = {int(line.split()[0]): line for line in lines if line.count(" ") == 1}
        return {start for start, line in noted.items() if line == f"{start} {self._checksum(start)}"}


def _mapped(path: Path, shape: tuple[int, ...], kind: str) -> npt.NDArray[Any]:
    """An array in a file, kept where it exists, its space reserved: a full disk is an error here, not a crash later."""
    if not shape[0]:  # an empty file cannot be mapped
        np.save(path, np.empty(shape, kind))
        return np.empty(shape, kind)
    if path.exists():
        kept = np.lib.format.open_memmap(path, mode="r+")
        if kept.shape == shape and kept.dtype == np.dtype(kind):
            return kept
    partial = path.with_suffix(".new")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(kind), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with partial.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
    partial.rename(path)
    return array


def _finish_split(scratch: Path, name: str, split: SplitPlan, kept: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The split's two files, without the samples that cannot be used, and its entry in the manifest."""
    image_file, label_file = scratch / f"{name}.images.npy", scratch / f"{name}.labels.npz"
    if len(kept) < split.count:
        everything = np.load(image_file, mmap_mode="r")
        smaller = scratch / f"{name}.images.kept.npy"
        images = _mapped(smaller, (len(kept), *everything.shape[1:]), "uint8")
        for start in range(0, len(kept), 1024):
            images[start : start + 1024] = everything[kept[start : start + 1024]]
        del everything, images
        smaller.replace(image_file)
    labels = {label: np.load(scratch / f"{name}.label.{label}.npy")[kept] for label in split.labels}
    np.savez(label_file, **labels)
    for label in split.labels:
        (scratch / f"{name}.label.{label}.npy").unlink()
    (scratch / f"{name}.journal").unlink(missing_ok=True)
    return {"count": len(kept), "files": {file.name: file_facts(file) for file in (image_file, label_file)}}
