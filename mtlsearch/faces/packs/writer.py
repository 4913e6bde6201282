"""Writing a pack: in threads, resumable, whole or not at all.

What is unfinished lies in `<folder>.partial` beside the pack's place. A chunk of samples that was written is noted in
a journal with its checksum, so a later run of the same plan goes on after it, whatever ended the first one; a different
plan is refused while there is work to lose. When all chunks are there, every final file is written, the manifest last,
before anything is removed: from then on the pack only has to be renamed, which appears under its name at once.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.packs.scratch import PLAN_FILE, begin, goes_on
from mtlsearch.training.problem import Progress

FORMAT_VERSION = 2
_CHUNK = 32  # samples a task: small enough for a smooth progress bar, large enough to hide its cost
MANIFEST_FILE = "manifest.json"
_IMAGES, _KEPT = ".images.npy", ".images.kept.npy"
_SHOWN = 10  # bad samples that an error lists; the others are in a file

Images = npt.NDArray[np.uint8]
Read = Callable[[int], tuple[Images, Mapping[str, Any]]]


@dataclass(frozen=True)
class SplitPlan:
    """What a split is made of.

    count: samples; labels: name -> (shape per sample, dtype); read(i): the image (H, H, 3) uint8 and the labels of
    sample i, called from any thread, which raises InputError for a sample that cannot be used; stamps (count,): a
    number per sample that changes with its source, so that what was read from another is read again.
    """

    count: int
    labels: Mapping[str, tuple[tuple[int, ...], str]]
    read: Read
    stamps: npt.NDArray[np.uint32] | None = None


@dataclass(frozen=True)
class PackPlan:
    """A pack to be written. Plans of equal facts, sizes and labels are one plan, and continue each other's work.

    facts: what the manifest says beside the splits, as JSON's types; size: side of the stored images; arrays: further
    files of named arrays, by file name; provenance: what the manifest says too, but the work does not depend on as a
    whole (see `SplitPlan.stamps`).
    """

    facts: Mapping[str, Any]
    size: int
    splits: Mapping[str, SplitPlan]
    arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]]
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
        digests = {file: digest_of(arrays) for file, arrays in self.arrays.items()}
        plan = {"facts": dict(self.facts), "size": self.size, "chunk": _CHUNK, "splits": splits, "arrays": digests}
        return json.loads(json.dumps({"kind": "pack", **plan}))


def write_pack(
    folder: Path,
    plan: PackPlan,
    progress: Progress | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write a pack, or finish one that was begun; the caller holds its lock.

    skip_bad: leave samples out that cannot be used, and list them in the manifest. Without it they raise InputError
    after everything else is written, so that the list is whole and a second run with skip_bad has little left to do.
    say: takes a line when the files are summed up, which takes a while after the progress has ended. Raises InputError
    too when the disk is too small.
    """
    scratch = folder.with_name(f"{folder.name}.partial")
    _begin(scratch, plan)
    if (scratch / MANIFEST_FILE).exists():
        _appear(scratch, folder)
        return
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
    if say is not None:
        say("checking: the checksum of every file is taken")
    kept = {
        name: np.array([i for i in range(split.count) if i not in bad.get(name, {})], np.int64)
        for name, split in plan.splits.items()
    }
    copied = sum(len(kept[name]) for name, split in plan.splits.items() if len(kept[name]) < split.count)
    require_space(scratch.parent, copied * plan.size**2 * 3, "leaving the bad samples out")
    manifest: dict[str, Any] = {"format_version": FORMAT_VERSION, **plan.facts, **plan.provenance}
    manifest |= {"skipped": messages, "splits": {}}
    for name, split in plan.splits.items():
        manifest["splits"][name] = _finish_split(scratch, name, split, kept[name])
    for file, arrays in plan.arrays.items():
        np.savez(scratch / file, **arrays)  # type: ignore[arg-type]  # newer stubs know allow_pickle
    manifest["files"] = {file: file_facts(scratch / file) for file in plan.arrays}
    unfinished = scratch / f"{MANIFEST_FILE}.new"
    with unfinished.open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(scratch / MANIFEST_FILE)
    _appear(scratch, folder)


def _appear(scratch: Path, folder: Path) -> None:
    """From a scratch folder that has its manifest to the pack, however often this is interrupted."""
    for smaller in scratch.glob(f"*{_KEPT}"):
        smaller.replace(smaller.with_name(smaller.name.replace(_KEPT, _IMAGES)))
    scratch.rename(folder)
    for pattern in (PLAN_FILE, "*.journal", "*.label.*.npy", "*.new"):
        for leftover in folder.glob(pattern):
            leftover.unlink()
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


def digest_of(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of named arrays, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _begin(scratch: Path, plan: PackPlan) -> None:
    """A scratch folder that holds this plan's work so far, or nothing."""
    described = plan.describe()
    if goes_on(scratch, described, "*.journal"):
        return
    require_space(scratch.parent, plan.needed_bytes, "packing these faces")
    begin(scratch, described)


def require_space(folder: Path, needed: int, work: str) -> None:
    """Raises InputError where the disk of a folder has fewer bytes free. work: what needs them."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{work} needs {needed / 1e6:,.0f} MB, {folder} has {free / 1e6:,.0f} MB free. Free some space, pack fewer "
            f"or smaller images, or choose another disk."
        )


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
        stamps = self._split.stamps
        value = 0 if stamps is None else zlib.crc32(stamps[start : start + _CHUNK].tobytes())
        for array in self._arrays.values():
            value = zlib.crc32(np.ascontiguousarray(array[start : start + _CHUNK]).view(np.uint8).data, value)
        return value

    def _finished(self) -> set[int]:
        """Chunks of an earlier run whose content is what was noted: a power cut can lose one without the other."""
        try:
            noted = set(self._journal.read_text(encoding="ascii", errors="replace").splitlines())
        except OSError:
            return set()
        # of lines of the same chunk, the last one to be written is right, or none is
        return {
            start
            for start in range(0, self._split.count, _CHUNK)
            if any(line.startswith(f"{start} ") for line in noted) and f"{start} {self._checksum(start)}" in noted
        }


def _mapped(path: Path, shape: tuple[int, ...], kind: str) -> npt.NDArray[Any]:
    """An array in a file, kept where it exists, its space reserved: a full disk is an error here, not a crash later."""
    if not shape[0]:  # an empty file cannot be mapped
        np.save(path, np.empty(shape, kind))
        return np.empty(shape, kind)
    if path.exists():
        try:
            kept = np.lib.format.open_memmap(path, mode="r+")
        except Exception:  # what a power cut left can raise anything
            kept = None
        if kept is not None and kept.shape == shape and kept.dtype == np.dtype(kind):
            return kept
    partial = path.with_suffix(".new")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(kind), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with partial.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
    partial.rename(path)
    return array


def _finish_split(scratch: Path, name: str, split: SplitPlan, kept: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The split's two files, without the samples that cannot be used, beside the work, and its manifest entry."""
    image_file, label_file = scratch / f"{name}{_IMAGES}", scratch / f"{name}.labels.npz"
    facts = {}
    if len(kept) < split.count:
        everything = np.load(image_file, mmap_mode="r")
        smaller = scratch / f"{name}{_KEPT}"
        images = _mapped(smaller, (len(kept), *everything.shape[1:]), "uint8")
        for start in range(0, len(kept), 1024):
            images[start : start + 1024] = everything[kept[start : start + 1024]]
        del everything, images
        facts[image_file.name] = file_facts(smaller)
    else:
        (scratch / f"{name}{_KEPT}").unlink(missing_ok=True)  # of an earlier run, before the samples were mended
        facts[image_file.name] = file_facts(image_file)
    labels = {label: np.load(scratch / f"{name}.label.{label}.npy")[kept] for label in split.labels}
    np.savez(label_file, **labels)
    return {"count": len(kept), "files": {**facts, label_file.name: file_facts(label_file)}}
