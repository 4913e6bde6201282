"""A study's copy at a URI, which a thread keeps up to date. The study's own folder is the original, and the buffer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.search.study.journal import whole_lines
from mtlsearch.search.study.paced import Paced
from mtlsearch.search.study.requests import FOLDER as REQUESTS
from mtlsearch.search.study.study import JOURNAL, OWED, Study, TrialState
from mtlsearch.training.checkpoint import BEST, LAST
from mtlsearch.training.storage import FileStat, RemoteFolder, StorageError, each, patiently

#: between looks at what has changed
_EVERY_S = 1.0
#: for storage that does not answer when the study ends, or a trial's weights are to be brought
_PATIENCE_S = 60.0


class StudyStorage:
    """Keeps `remote`, a study's folder at a URI, as the study's own folder is: the journal first.

    A trial that is running stores its checkpoints there itself (`trial_uri`), wherever it runs. `collect` brings what
    it leaves; from `ended` on its folder is the study's, as all others are: what is removed there goes here too.
    """

    def __init__(self, remote: RemoteFolder, study: Study, say: Callable[[str], None], new: bool = False) -> None:
        """say: told when the storage stops to answer, and when it answers again.
        new: whether the study has just begun, so that nothing of what lies there is its own.

        Raises:
            StorageError: the storage does not answer.
        """
        self.remote, self._study, self._say = remote, study, say
        self._stored: dict[str, tuple[int, int]] = {}
        """files as they lie there: size, and time of the last change of their originals"""
        self._journal_bytes = 0
        self._owned = {trial.number for trial in study.trials.values() if trial.status != "running"}
        """trials whose folders are the study's"""
        self._untidy: set[int] = set()
        """of them, those in whose folders there may be more than the study has"""
        self._owed = [
            trial for trial in study.trials.values() if trial.number in self._owned and self._mark(trial).exists()
        ]
        """those whose files could not be brought yet, with a mark in their folders, for a driver that is killed"""
        self._silent = False
        self._busy = threading.Lock()
        self._paced = Paced(self._update)
        self._begin(new)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)
        self._thread.start()

    @property
    def scratch(self) -> RemoteFolder:
        """For what others keep there while the study is run."""
        return self.remote.join(".scratch")

    def trial_uri(self, number: int) -> str:
        """Where a trial stores its checkpoints while it trains."""
        return self.remote.join("trials").join(self._study.trial_folder(number).name).uri

    def collect(self, trial: TrialState) -> None:
        """Brings what a trial that has run to its end leaves into its folder of the study, before its end is noted.

        Weights are those of the search: others are never asked for.
        """
        try:
            patiently(lambda: self._bring(trial), _PATIENCE_S, self._say)
        except StorageError as error:
            self._say(f"what trial {trial.number} leaves comes later: {error}")
            self._mark(trial).touch()
            self._owed.append(trial)

    def ended(self, number: int) -> None:
        """A trial's end is in the journal: what its folder there has beyond the study's goes."""
        self._untidy.add(number)
        self._owned.add(number)

    def settle(self) -> None:
        """Brings the copy up to date now, if the storage answers."""
        self._try(self._update)

    def close(self) -> None:
        """Brings the copy up to date, and says what to do where the storage does not answer for a minute."""
        self._ending.set()
        self._thread.join()
        try:
            with self._busy:
                patiently(self._update, _PATIENCE_S)
                self.scratch.remove()
        except (StorageError, OSError) as error:
            folder = self._study.folder.absolute()
            lies = f"The study lies whole in {folder}"
            owed = [trial.number for trial in self._owed if self._mark(trial).exists()]
            if owed:
                numbers = ", ".join(map(str, owed))
                lies = f"The study lies in {folder}, but what trial {numbers} left lies only at the storage: keep both"
            self._say(
                f"storage: {error}. {lies}; to bring both up to date: "
                f"python -m mtlsearch.tune --resume {folder} --storage-path URI, when it answers"
            )

    def _begin(self, new: bool) -> None:
        """What is there already, and what not. The journal comes last: with it the copy is a study."""
        self.scratch.remove()  # of a driver that was killed
        self.remote.sweep()
        self._bring_owed()
        there = self.remote.files()
        going_on = [trial.number for trial in self._study.trials.values() if trial.number not in self._owned]
        for number in going_on:
            self._hand_over(self._study.trial_folder(number), there)
        for name, path in self._files():
            stat = there.get(name)
            # files beside the trials change while a study goes on, and are few
            if name.startswith("trials/") and stat and stat.size == path.stat().st_size and _written_after(stat, path):
                self._stored[name] = _state(path)
        training = {self._name(self._study.trial_folder(number)) for number in going_on}
        # of trials that only a lost journal knew, or that the study has removed since
        own = [name for name in there if not new and name.startswith(("trials/", f"{REQUESTS}/"))]
        gone = [name for name in own if name.rpartition("/")[0] not in training]
        each(self.remote.delete, [name for name in gone if not (self._study.folder / name).exists()])
        self._upload_changed()
        self._upload_journal()

    def _hand_over(self, folder: Path, there: Mapping[str, FileStat]) -> None:
        """Stores the checkpoints of a trial that goes on, where they are newer: it trains from there now."""
        last = folder / LAST
        stat = there.get(self._name(last))
        paths = [path for path in (folder / BEST, last) if path.exists()]
        if last.exists() and (stat is None or not _written_after(stat, last)):
            for path in paths:
                self.remote.upload(path, self._name(path))
        for path in paths:
            path.unlink()

    def _work(self) -> None:
        while not self._ending.wait(_EVERY_S):
            self._try(self._paced.call)

    def _try(self, update: Callable[[], None]) -> None:
        try:
            with self._busy:
                update()
        except (StorageError, OSError) as error:
            if not self._silent:
                self._say(f"storage: {error}; the study goes on in {self._study.folder}, and it is tried again")
            self._silent = True
        else:
            if self._silent:
                self._say("storage: it answers again, and has what was held back")
            self._silent = False

    def _mark(self, trial: TrialState) -> Path:
        return self._study.trial_folder(trial.number) / OWED

    def _bring_owed(self) -> None:
        while self._owed:
            trial = self._owed[0]
            if self._mark(trial).exists():  # else the study has removed what it left
                self._bring(trial)
                self._mark(trial).unlink(missing_ok=True)
            self._owed.pop(0)

    def _bring(self, trial: TrialState) -> None:
        folder = self._study.trial_folder(trial.number)
        source = RemoteFolder(self.trial_uri(trial.number))
        left_out = {LAST} if trial.phase == "search" else {LAST, BEST}
        for name in source.files().keys() - left_out:
            source.download(name, folder / name)
            self._stored[self._name(folder / name)] = _state(folder / name)

    def _update(self) -> None:
        untidy = set(self._untidy)  # first: whatever of these is owed was noted before
        self._bring_owed()
        self._upload_journal()
        self._upload_changed()
        for name in list(self._stored):
            if not (self._study.folder / name).exists():
                self.remote.delete(name)
                del self._stored[name]
        for number in untidy:
            folder = self._study.trial_folder(number)
            source = RemoteFolder(self.trial_uri(number))
            for name in source.files():
                if not (folder / name).exists():
                    source.delete(name)
        self._untidy -= untidy

    def _upload_journal(self) -> None:
        path = self._study.folder / JOURNAL
        if path.stat().st_size != self._journal_bytes:
            content = whole_lines(path.read_bytes())
            self.remote.write(JOURNAL, content)
            self._journal_bytes = len(content)

    def _upload_changed(self) -> None:
        each(self._upload, [(name, path) for name, path in self._files() if name != JOURNAL])

    def _upload(self, file: tuple[str, Path]) -> None:
        name, path = file
        try:
            state = _state(path)
            if self._stored.get(name) != state:
                self.remote.upload(path, name)
                self._stored[name] = state
        except FileNotFoundError:
            """It was removed meanwhile: the next look sees that."""

    def _files(self) -> Iterator[tuple[str, Path]]:
        """The study's own files, with their names there."""
        trials = self._study.folder / "trials"
        for folder, folders, names in os.walk(self._study.folder):
            place = Path(folder)
            folders[:] = [name for name in folders if not name.startswith(".")]
            if place == trials:
                owned = {self._study.trial_folder(number).name for number in set(self._owned)}
                folders[:] = [name for name in folders if name in owned]
            yield from ((self._name(place / name), place / name) for name in names if not name.startswith("."))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._study.folder).as_posix()


def check_new(remote: RemoteFolder) -> None:
    """Raises InputError where a study lies at `remote` already, or anything else."""
    there = [name for name in remote.files() if not name.startswith((".scratch/", ".check-"))]
    if JOURNAL in there:
        raise InputError(
            f"{remote} holds a study already; give another --name, or go on with it by --resume {remote.name}"
        )
    if there:
        raise InputError(f"{remote} holds files that are of no study, such as {min(there)}; give another --name")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _written_after(stat: FileStat, path: Path) -> bool:
    """Whether what is there was written after `path`, by times in seconds."""
    return stat.modified is not None and stat.modified // 10**9 >= path.stat().st_mtime_ns // 10**9
