"""Folders at a URI: on this machine, in an object store, on whatever else pyarrow's or fsspec's file systems reach."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

from mtlsearch._masking import masked, without_secrets
from mtlsearch.errors import InputError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

T = TypeVar("T")
#: schemes that pyarrow has file systems for; all others are asked of fsspec
_NATIVE = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
#: of them, those where an object is there when it is whole, and not before
_OBJECT_STORES = ("s3", "gcs", "abfs")
#: what is being written goes by such a name until it is whole
_PART = ".part"
#: of a request to an object store
_CHUNK_BYTES = 16 * 2**20
#: requests at one time: most of the time of a small file is waiting
_TOGETHER = 8
#: seconds between tries while a storage does not answer
_RETRY_S = 2.0
#: what was begun so long ago is not being written any more
_LEFT_NS = 24 * 3600 * 10**9
#: of a file that changed so long ago, the time tells whether it has changed since
_SETTLED_NS = 2 * 10**9
#: until an S3 server takes a connection, and goes on with an answer; and tries. Pyarrow's own patience is 100 s
_CONNECT_S, _REQUEST_S, _ATTEMPTS = 5.0, 10.0, 3
#: tries to read a file that is replaced meanwhile
_TRIES = 5


class StorageError(InputError):
    """Something at a URI cannot be read or written: it does not answer, refuses, or is full."""


class NotThereError(StorageError):
    """There is no such file."""


@dataclass(frozen=True)
class FileStat:
    """What a listing says of a file: bytes, and nanoseconds of its last change where the storage tells them."""

    size: int
    modified: int | None

    def is_of(self, local: Path) -> bool:
        """Whether `local` is what `RemoteFolder.download` made of this file."""
        if self.modified is None or not local.is_file():
            return False
        found = local.stat()
        # some answers of an object store leave out what is below a second
        unit = 1 if found.st_mtime_ns % 10**9 and self.modified % 10**9 else 10**9
        return found.st_size == self.size and found.st_mtime_ns // unit == self.modified // unit


class RemoteFolder:
    """A folder at a URI, or at an absolute path of this machine. Making one contacts nobody.

    Pyarrow's own file systems (file, s3, gs, hdfs, abfs) take options in the query, as in
    `s3://bucket/studies?endpoint_override=127.0.0.1:9000&scheme=http`; everything else is fsspec's. Credentials come
    from where each of them looks for them: the environment, a file of the user's, the role of the machine.

    Names of files are relative, with `/` between their parts. All methods raise StorageError, an InputError, where the
    storage does not do what it is asked.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Raises InputError where `uri` is neither a URI nor an absolute path, or names no folder in its store."""
        text = os.fspath(uri)
        if "://" not in text:
            path = Path(text).expanduser()
            if not path.is_absolute():
                raise InputError(f"{text!r} is neither a URI, such as s3://bucket/folder, nor an absolute path")
            text = Path(os.path.normpath(path)).as_uri()
        self.uri = text
        address, mark, options = text.partition("?")
        self._address, self._options = address.rstrip("/"), mark + options
        if "://" not in self._address:
            raise InputError(f"{self} is a whole store or disk; give a folder, such as s3://bucket/folder or /folder")
        self._bucket_made = False

    def __str__(self) -> str:
        """The URI without secrets: for screens and messages."""
        return masked(self.uri)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def join(self, name: str) -> RemoteFolder:
        """A folder within this one, with the same options."""
        return RemoteFolder(f"{self._address}/{quote(name) if self._native else name}{self._options}")

    @property
    def filesystem(self) -> FileSystem:
        """pyarrow's file system that it lies on."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """Where it lies on `filesystem`."""
        return self._opened[1]

    def files(self) -> dict[str, FileStat]:
        """All files in it and in its folders; none where it does not exist."""
        from pyarrow import fs

        with self._explained("listed"):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True))
            start = len(self.path.rstrip("/")) + 1
            return {
                info.path[start:]: _stat(info)
                for info in found
                if info.type == fs.FileType.File
                and not info.path.endswith(_PART)
                and "//" not in info.path[start - 1 :]  # no name of a file on a disk
            }

    def exists(self, name: str) -> bool:
        return self._info(name) is not None

    def upload(self, local: Path, name: str) -> None:
        """Puts a file of this machine here, in the place of the one that is there. Readers see one or the other."""
        with local.open("rb") as source:
            self._write(name, lambda target: shutil.copyfileobj(source, target, _CHUNK_BYTES))

    def write(self, name: str, content: bytes) -> None:
        """As `upload`, of a file with this content."""
        self._write(name, lambda target: target.write(content))

    def download(self, name: str, local: Path) -> None:
        """Brings a file to `local`, whole or not at all, with its time of change; an earlier one where the file is so
        new that it may change again within that time as it is told: it is brought again then.

        Raises:
            NotThereError: there is no such file.
        """
        with self._explained("read", name):  # folders of this machine are part of it: its disk may be full
            local.parent.mkdir(parents=True, exist_ok=True)
            temporary = local.with_name(f".{local.name}.{uuid.uuid4().hex}{_PART}")
            try:
                with temporary.open("wb") as target:
                    stat = self._read(name, target)
                if stat.modified is not None:
                    settled = time.time_ns() - stat.modified > _SETTLED_NS
                    changed = stat.modified if settled else stat.modified - _SETTLED_NS
                    os.utime(temporary, ns=(changed, changed))
                temporary.chmod(0o644)
                os.replace(temporary, local)
            finally:
                temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            NotThereError: there is no such file.
        """
        import io

        with self._explained("read", name):
            target = io.BytesIO()
            self._read(name, target)
            return target.getvalue()

    def delete(self, name: str) -> None:
        """Removes a file; one that is not there is gone already."""
        with self._explained("deleted", name):
            try:
                self.filesystem.delete_file(self._at(name))
            except FileNotFoundError:
                return

    def remove(self) -> None:
        """Removes the folder with all that is in it, where it exists."""
        with self._explained("deleted"):
            try:
                self.filesystem.delete_dir(self.path)
            except FileNotFoundError:
                return

    def sweep(self) -> None:
        """Removes what killed processes left half written, a day ago or more."""
        from pyarrow import fs

        if self.filesystem.type_name in _OBJECT_STORES:
            return  # which keep nothing half written
        with self._explained("tidied"):
            for info in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True)):
                age = time.time_ns() - info.mtime_ns if info.mtime_ns is not None else 0
                name = info.path.rpartition("/")[2]
                if info.is_file and name.startswith(".") and name.endswith(_PART) and age > _LEFT_NS:
                    self.filesystem.delete_file(info.path)

    def check(self) -> None:
        """Raises StorageError where files cannot be written, read and deleted here."""
        name = f".check-{uuid.uuid4().hex}"
        self.write(name, name.encode())
        read = self.read(name)
        self.delete(name)
        if read != name.encode():
            raise StorageError(f"{self} gave back something else than what was written; give another place")

    @property
    def _native(self) -> bool:
        return self._address.partition("://")[0] in _NATIVE

    @cached_property
    def _opened(self) -> tuple[FileSystem, str]:
        import pyarrow
        from pyarrow import fs

        with self._explained("opened"):
            if self._native:
                try:
                    filesystem, path = fs.FileSystem.from_uri(self._address + self._options)
                    return _impatient(filesystem), path
                except pyarrow.ArrowNotImplementedError:
                    """This pyarrow was built without it."""
            return self._by_fsspec()

    def _by_fsspec(self) -> tuple[FileSystem, str]:
        from fsspec.core import url_to_fs
        from pyarrow import fs

        try:
            own, path = url_to_fs(self._address)
        except ImportError as error:
            package = getattr(error.__cause__ or error, "name", None)
            install = f"pip install {package}" if package else "install what it names"
            reason = without_secrets(str(error), self.uri)
            raise StorageError(f"{self} needs a package that is not installed ({reason}): {install}") from None
        return fs.PyFileSystem(fs.FSSpecHandler(own)), path

    def _at(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def _info(self, name: str) -> FileStat | None:
        from pyarrow import fs

        with self._explained("read", name):
            info = self.filesystem.get_file_info(self._at(name))
            return _stat(info) if info.type == fs.FileType.File else None

    def _write(self, name: str, fill: Callable[[BinaryIO], Any]) -> None:
        path, filesystem = self._at(name), self.filesystem
        with self._explained("written", name):
            if filesystem.type_name in _OBJECT_STORES:  # which have no folders
                if "allow_bucket_creation" in self._options and not self._bucket_made:
                    filesystem.create_dir(path.partition("/")[0])
                    self._bucket_made = True
                with filesystem.open_output_stream(path) as target:
                    fill(target)
                return
            folder, _, last = path.rpartition("/")
            filesystem.create_dir(folder, recursive=True)
            temporary = f"{folder}/.{last}.{uuid.uuid4().hex}{_PART}"
            try:
                with filesystem.open_output_stream(temporary) as target:
                    fill(target)
                filesystem.move(temporary, path)
            except BaseException:
                if filesystem.get_file_info(temporary).is_file:
                    filesystem.delete_file(temporary)
                raise

    def _read(self, name: str, target: BinaryIO) -> FileStat:
        """Writes the file to `target`, again where it was replaced meanwhile."""
        for _ in range(_TRIES):
            before = self._info(name)
            if before is None:
                raise NotThereError(f"there is no {name} in {self}")
            target.seek(0)
            target.truncate()
            try:
                with self.filesystem.open_input_file(self._at(name)) as source:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
            except FileNotFoundError:
                continue
            if target.tell() == before.size and self._info(name) == before:
                return before
        raise StorageError(f"{name} in {self} changed each of the {_TRIES} times that it was read; try again later")

    @contextmanager
    def _explained(self, done: str, name: str = "") -> Iterator[None]:
        """Gives what a file system raises, of whatever kind, in a line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # each file system has its own
            reason = without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0], self.uri)
            ours = not name or name.startswith(".")  # a hidden file's name says nothing to a user
            what = f"storage {self}" if ours else f"{name} in {self}"
            raise StorageError(
                f"{what} cannot be {done} ({reason}); check the address, your rights there, and the credentials in the "
                "environment"
            ) from None


def _impatient(filesystem: FileSystem) -> FileSystem:
    """An S3 server that takes requests and does not answer them is to be noticed soon; URIs have no option for that."""
    from pyarrow import fs

    if filesystem.type_name != "s3":
        return filesystem
    _, (options,) = filesystem.__reduce__()  # as it would be pickled
    return fs.S3FileSystem(
        **{name: value for name, value in options.items() if value not in ("", None)}
        | {"connect_timeout": _CONNECT_S, "request_timeout": _REQUEST_S},
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def _stat(info: FileInfo) -> FileStat:
    return FileStat(info.size or 0, info.mtime_ns)


def each(action: Callable[[T], Any], items: Iterable[T]) -> None:
    """Carries out `action` on the items, several at a time, until one of them raises."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        waiting = [pool.submit(action, item) for item in items]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def patiently(action: Callable[[], T], seconds: float, say: Callable[[str], None] | None = None) -> T:
    """What `action` returns, tried again while the storage does not answer, for so many seconds.

    say: told once, with the reason, that it is waited for.

    Raises:
        StorageError: it did not answer in that time.
        NotThereError: at once, since it answers.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except NotThereError:
            raise
        except StorageError as error:
            if time.monotonic() > deadline:
                raise
            if say is not None:
                say(f"{error}; trying again")
                say = None
            time.sleep(_RETRY_S)
