"""Packs at a URI: each machine fetches a copy of its own once, whichever process comes first, and checks every byte."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.faces.packs.pack import Pack, default_root, open_pack, pack_lock, read_listing
from mtlsearch.faces.packs.writer import MANIFEST_FILE, checksum, require_space
from mtlsearch.training.problem import Progress
from mtlsearch.training.storage import RemoteFolder


def is_uri(place: str) -> bool:
    """Whether a pack is to be fetched; a folder is read where it lies, on a disk that several machines share too."""
    return "://" in place


def local_pack(place: str, progress: Progress | None = None) -> Pack:
    """The pack in a folder, or the cached copy of one at a URI, fetched now if this machine has none.

    A copy is named by what the manifest at the URI says, so that a pack which is replaced there is fetched anew. A
    fetch that was interrupted goes on with the files that are whole. progress: takes the bytes fetched, of all.

    Raises:
        InputError: there is no pack, the storage does not answer, the disk is too small, or a file is not what its
            checksum says.
    """
    if not is_uri(place):
        return open_pack(place)
    remote = RemoteFolder(place)
    manifest = remote.read(MANIFEST_FILE)
    folder = default_root() / f"fetched-{hashlib.sha256(manifest).hexdigest()[:16]}"
    if not folder.exists():
        with pack_lock(folder):
            if not folder.exists():
                _fetch(remote, manifest, folder, progress)
    return open_pack(folder)


def _fetch(remote: RemoteFolder, manifest: bytes, folder: Path, progress: Progress | None) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    (partial / MANIFEST_FILE).write_bytes(manifest)
    try:
        files = read_listing(partial).files
    except InputError as error:
        shutil.rmtree(partial)
        reason = str(error).removeprefix(f"{partial / MANIFEST_FILE}: ").partition(". Delete the folder")[0]
        raise InputError(f"{MANIFEST_FILE} in {remote}: {reason}; copy the pack there again") from None
    total = sum(size for _, size, _ in files)
    require_space(partial, total - sum(file.stat().st_size for file in partial.iterdir()), f"the pack {remote}")
    done = 0
    for name, size, sha256 in files:
        local = partial / name
        if not local.exists() or checksum(local) != sha256:
            remote.download(name, local)
            if (found := checksum(local)) != sha256:
                local.unlink()
                raise InputError(
                    f"{name} in {remote} has the checksum {found} and in its manifest {sha256}; copy the pack there "
                    "again"
                )
        done += size
        if progress is not None:
            progress(done, total)
    os.replace(partial, folder)
