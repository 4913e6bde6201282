"""A study brought here from where it lies: from the URI at which tune keeps it, or from any folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtlsearch.errors import InputError
from mtlsearch.search.study.journal import parse_journal, whole_lines
from mtlsearch.search.study.requests import FOLDER as REQUESTS
from mtlsearch.search.study.study import JOURNAL, replay, study_lock, trial_folder
from mtlsearch.training.checkpoint import BEST, LAST
from mtlsearch.training.storage import FileStat, NotThereError, RemoteFolder, each
from mtlsearch.training.yaml_files import write_text


@dataclass(frozen=True)
class Fetched:
    """What was brought: files, and their bytes; and the files that were here already."""

    folder: Path
    files: int
    size: int
    here: int


def fetch(source: str, to: Path, weights: bool = True) -> Fetched:
    """Brings the study at `source`, a URI or a folder, to a folder of its name under `to`, or brings that up to date.

    A study that is running is brought as it is now. weights: False leaves out checkpoints.

    Raises:
        InputError: no study lies at `source`, or what is under `to` is another one, or has gone on by itself.
    """
    remote = RemoteFolder(source if "://" in source else Path(source).absolute())
    folder = to / remote.name
    journal = journal_of(remote)
    if journal is None:
        raise InputError(f"{remote} holds no study; give the URI or the folder that tune printed")
    if folder.exists() and RemoteFolder(folder.absolute()).uri == remote.uri:
        raise InputError(f"{folder} is the study itself; give --to another folder")
    if _relation(folder, journal, remote) == "ahead":
        raise InputError(f"{folder} has gone on by itself since it was fetched from {remote}; give --to another folder")
    return _bring(remote, folder, journal, lambda name: weights or not _is_checkpoint(name))


def study_to_resume(resume: Path, results: Path, storage: RemoteFolder | None) -> Path:
    """The folder of the study to go on with, brought up to date from storage / its name.

    resume: its folder, or its name under `results`, where that is no study's folder.

    Raises:
        InputError: neither place holds a study, or they hold different ones.
    """
    folder = results / resume if len(resume.parts) == 1 and not (resume / JOURNAL).exists() else resume
    if storage is None:
        return folder
    remote = storage.join(folder.name)
    journal = journal_of(remote)
    if journal is None:
        if not (folder / JOURNAL).exists():
            raise InputError(f"--resume: neither {folder} nor {remote} holds a study")
        _check_own(remote, folder)
        return folder
    current = _relation(folder, journal, remote) in ("ahead", "same")

    ended = _ended_folders(journal)

    def wanted(name: str) -> bool:
        place = name.rpartition("/")[0]
        if place.startswith("trials/") and place not in ended:
            return False  # a trial that goes on finds its checkpoints there itself
        return not (current and (place == REQUESTS or (folder / name).exists()))

    _bring(remote, folder, None if current else journal, wanted)
    return folder


def _check_own(remote: RemoteFolder, folder: Path) -> None:
    """Raises InputError where files lie at `remote`, which has no journal, that the study in `folder` did not bring."""
    brought = (BEST, LAST)  # a study that was killed there hands over checkpoints first
    for name in remote.files():
        if not (_hidden(name) or name.rpartition("/")[2] in brought or (folder / name).exists()):
            raise InputError(
                f"--resume: {remote} holds files that are not of {folder}, such as {name}; give another place"
            )


def journal_of(remote: RemoteFolder) -> bytes | None:
    """The journal of the study that lies at `remote`; None where there is none."""
    try:
        return whole_lines(remote.read(JOURNAL))
    except NotThereError:
        return None


def _relation(folder: Path, journal: bytes, remote: RemoteFolder) -> Literal["behind", "same", "ahead"]:
    """How the study in `folder` stands to that of `journal`.

    Raises:
        InputError: neither journal is a beginning of the other.
    """
    own = _own_journal(folder)
    if own == journal:
        return "same"
    if journal.startswith(own):
        return "behind"
    if own.startswith(journal):
        return "ahead"
    raise InputError(
        f"{folder} and {remote} hold different studies, or have both gone on from the same one: neither journal is a "
        "beginning of the other. Move one of them away, or give another name"
    )


def _bring(remote: RemoteFolder, folder: Path, journal: bytes | None, wanted: Callable[[str], bool]) -> Fetched:
    """Brings the wanted files that are not here as they are there, and the journal, where there is one, last."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = study_lock(folder)
    try:
        there = {name: stat for name, stat in remote.files().items() if not _hidden(name) and name != JOURNAL}
        due = {name: stat for name, stat in there.items() if wanted(name) and not stat.is_of(folder / name)}

        def bring(name: str) -> None:
            with suppress(NotThereError):  # a study that is running removed it since
                remote.download(name, folder / name)

        each(bring, due)
        if journal is not None and _own_journal(folder) != journal:
            write_text(folder / JOURNAL, journal.decode())
            due[JOURNAL] = FileStat(len(journal), None)
            for ended in _ended_folders(journal):
                (folder / ended / LAST).unlink(missing_ok=True)
        return Fetched(folder, len(due), sum(stat.size for stat in due.values()), len(there) + 1 - len(due))
    finally:
        lock.release()


def _own_journal(folder: Path) -> bytes:
    return whole_lines((folder / JOURNAL).read_bytes()) if (folder / JOURNAL).exists() else b""


def _ended_folders(journal: bytes) -> set[str]:
    """The folders of the trials that have ended, as names within their study's."""
    trials = replay(parse_journal(journal, JOURNAL))
    return {trial_folder(Path(), trial.number).as_posix() for trial in trials if trial.status != "running"}


def _is_checkpoint(name: str) -> bool:
    return name.endswith(".safetensors") or name.rpartition("/")[2] == LAST


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
