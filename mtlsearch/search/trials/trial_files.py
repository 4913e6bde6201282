"""Where a trial trains: in its study's folder, or, where the study is kept at a URI, in a folder of its own node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlsearch.training.checkpoint import BEST, LAST
from mtlsearch.training.folders import own_folder
from mtlsearch.training.sample_scores import SCORES
from mtlsearch.training.storage import RemoteFolder, StorageError, patiently

#: for storage that does not answer, before a trial that needs it is given up
_PATIENCE_S = 600.0
_PREFIX = "mtlsearch-trial-"
#: last.pt says which epoch is the best, so that the weights of that epoch have to be there before it
_PUSHED = (BEST, SCORES, LAST)


class TrialFiles:
    """The folder that one process trains a trial in. Where the study is kept at a URI, what it writes goes there."""

    def __init__(self, folder: Path, remote: RemoteFolder | None = None) -> None:
        self.folder, self._remote = folder, remote
        self._stored: dict[str, int] = {}

    def push(self) -> None:
        """Stores what has changed. Where the storage does not answer, the next call does: an epoch that was reported
        and is not stored is trained again after a loss, and not reported again."""
        try:
            self._push()
        except StorageError:
            return

    def settle(self) -> None:
        """Stores what has changed, and waits for that.

        Raises:
            StorageError: the storage has not answered for minutes.
        """
        patiently(self._push, _PATIENCE_S)

    def pull(self) -> None:
        """Brings what an earlier process has stored of the trial.

        Raises:
            StorageError: the storage has not answered for minutes.
        """
        patiently(self._pull, _PATIENCE_S)

    def _push(self) -> None:
        if self._remote is None:
            return
        for path in (self.folder / name for name in _PUSHED):
            changed = path.stat().st_mtime_ns if path.exists() else None
            if changed is not None and self._stored.get(path.name) != changed:
                self._remote.upload(path, path.name)
                self._stored[path.name] = changed

    def _pull(self) -> None:
        for name in (LAST, BEST):
            if self._remote is not None and self._remote.exists(name):
                self._remote.download(name, self.folder / name)
                self._stored[name] = (self.folder / name).stat().st_mtime_ns


@contextmanager
def trial_files(directory: str, storage: str) -> Iterator[TrialFiles]:
    """The folder `directory`, or, where `storage` is the URI of the trial's folder, a temporary one with what is there.

    Raises:
        StorageError: the storage has not answered for minutes.
    """
    if not storage:
        yield TrialFiles(Path(directory))
        return
    with own_folder(_PREFIX) as folder:
        files = TrialFiles(folder, RemoteFolder(storage))
        files.pull()
        yield files
