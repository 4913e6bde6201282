"""Files from elsewhere, read so that they can neither run code nor exhaust memory.

A pickle is a program: reading one runs whatever it names. Data sets and models of this field are published as
pickles all the same, so `load_pickle` admits what NumPy arrays and plain containers need, by name, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.io

from mtlsearch.errors import InputError

MAX_BYTES = 4 << 30
"""What a file may hold, on disk and unpacked, unless the caller says otherwise: 4 GiB."""

_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # bytes, as Python 2 and protocol 2 write them
    ("collections", "OrderedDict"),
}


_NDARRAY = object()
"""Stands for the class ndarray, which may be named but not called."""


class _ArrayUnpickler(pickle._Unpickler):
    """In Python, not C: the C one allocates its memo table at the size that the file names."""

    def __init__(self, stream: io.BufferedIOBase, path: Path, max_bytes: int, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)
        self._path, self._max_bytes = path, max_bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(
                f"{self._path}: this pickle asks for {module}.{name}, and only NumPy arrays and plain containers are "
                f"admitted, since anything else can run code. Save what you need with numpy.savez instead."
            )
        if name == "_reconstruct":
            return self._empty_array
        return _NDARRAY if name == "ndarray" else super().find_class(module, name)

    def _empty_array(self, kind: Any, shape: Any, dtype: Any) -> Any:
        """An ndarray to be filled by its state; real files ask for shape (0,), a hostile one for petabytes."""
        cells = np.prod([int(n) for n in shape], dtype=float)
        if kind is not _NDARRAY or cells * np.dtype(dtype).itemsize > self._max_bytes:
            raise InputError(f"{self._path}: this pickle asks for an array of shape {tuple(shape)!r}")
        return np.ndarray.__new__(np.ndarray, shape, dtype)


def check_size(path: str | Path, max_bytes: int = MAX_BYTES) -> Path:
    """The path, after checking that it is a file of at most max_bytes. InputError otherwise."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if size > max_bytes:
        raise InputError(f"{path} has {size:,} bytes; at most {max_bytes:,} are read")
    return path


def load_pickle(path: str | Path, max_bytes: int = MAX_BYTES, encoding: str = "latin1") -> Any:
    """What a pickle holds: NumPy arrays, numbers, strings, lists, tuples, dictionaries.

    encoding: of Python 2 strings (latin1 keeps the bytes of arrays). Raises InputError for anything else in it, and for
    a file that is no pickle or larger than max_bytes. Arrays of Python objects are refused too.
    """
    path = check_size(path, max_bytes)
    try:
        with path.open("rb") as stream:
            loaded = _ArrayUnpickler(stream, path, max_bytes, encoding).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is not a readable pickle ({type(error).__name__}: {error})") from error
    _refuse_objects(path, loaded, 0)
    return loaded


def _refuse_objects(path: Path, value: Any, depth: int) -> None:
    if depth > 32:
        raise InputError(f"{path}: containers nested deeper than 32")
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise InputError(f"{path}: holds an array of Python objects; only arrays of numbers are read")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return
    for item in value:
        _refuse_objects(path, item, depth + 1)


def load_npy(path: str | Path, max_bytes: int = MAX_BYTES) -> npt.NDArray[Any]:
    """A .npy file without pickles, at most max_bytes once in memory."""
    path = check_size(path, max_bytes)
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise InputError(f"{path} is not a readable .npy file of numbers ({error})") from error


def load_npz(path: str | Path, max_bytes: int = MAX_BYTES) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file without pickles; at most max_bytes in all once unpacked."""
    path = check_size(path, max_bytes)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max_bytes:
            raise InputError(f"{path} unpacks to {unpacked:,} bytes; at most {max_bytes:,} are read")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable .npz file of numbers ({error})") from error


def load_mat(path: str | Path, max_bytes: int = MAX_BYTES, variables: list[str] | None = None) -> dict[str, Any]:
    """The arrays of a MATLAB file of versions 4 to 7.2, at most max_bytes in all once inflated.

    variables: read these only. Raises InputError, for MATLAB 7.3 files too (they are HDF5), and where a variable that
    was asked for is not there.
    """
    path = check_size(path, max_bytes)
    content = path.read_bytes()
    _check_inflated(path, content, max_bytes)
    try:
        loaded = scipy.io.loadmat(io.BytesIO(content), variable_names=variables)
    except NotImplementedError as error:
        raise InputError(f"{path} is a MATLAB 7.3 file; save it with `save -v7` to read it here") from error
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path} is not a readable .mat file ({type(error).__name__}: {error})") from error
    arrays = {name: value for name, value in loaded.items() if not name.startswith("__")}
    missing = [name for name in variables or () if name not in arrays]
    if missing:
        raise InputError(f"{path} has no variable {', '.join(missing)} (it has: {', '.join(sorted(arrays)) or 'none'})")
    return arrays


_MAT_HEADER, _COMPRESSED = 128, 15


def _check_inflated(path: Path, content: bytes, max_bytes: int) -> None:
    """Inflate a MATLAB 5 file's compressed elements piece by piece, keeping none, and refuse one that grows too big."""
    order: Literal["little", "big"] = "big" if content[126:128] == b"MI" else "little"
    at, left = _MAT_HEADER, max_bytes
    while at + 8 <= len(content):
        kind = int.from_bytes(content[at : at + 4], order)
        size = int.from_bytes(content[at + 4 : at + 8], order)
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            data = content[at + 8 : at + 8 + size]
            while data and not inflate.eof:
                try:
                    left -= len(inflate.decompress(data, 1 << 20))
                except zlib.error as error:
                    raise InputError(f"{path} is damaged: {error}") from error
                if left < 0:
                    raise InputError(f"{path} inflates to more than {max_bytes:,} bytes, the most that is read")
                data = inflate.unconsumed_tail
        at += 8 + size
