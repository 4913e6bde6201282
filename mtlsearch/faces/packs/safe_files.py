"""Files from elsewhere, read so that they can neither run code nor exhaust memory.

A pickle is a program: reading one runs whatever it names. Data sets and models of this field are published as
pickles all the same, so `load_pickle` admits what NumPy arrays and plain containers need, by name, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Iterable
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

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: io.BufferedIOBase, path: Path, max_bytes: int, encoding: str) -> None:
        super().__init__(stream, encoding=encoding)
        self._path, self._max_bytes = path, max_bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(
                f"{self._path}: this pickle asks for {module}.{name}, and only NumPy arrays and plain containers are "
                f"admitted, since anything else can run code. Save what you need with numpy.savez instead."
            )
        ours = {"_reconstruct": self._empty_array, "scalar": _scalar, "encode": _encode, "ndarray": _NDARRAY}
        return ours[name] if name in ours else super().find_class(module, name)

    def _empty_array(self, kind: Any, shape: Any, dtype: Any) -> Any:
        """An ndarray to be filled by its state; real files ask for shape (0,), a hostile one for petabytes."""
        cells = np.prod([int(n) for n in shape], dtype=float)
        if kind is not _NDARRAY or cells * np.dtype(dtype).itemsize > self._max_bytes:
            raise InputError(f"{self._path}: this pickle asks for an array of shape {tuple(shape)!r}")
        return np.ndarray.__new__(np.ndarray, shape, dtype)

    def _load_bytearray(self) -> None:
        """As much as the file holds: Python's own allocates what the file names before it reads."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray  # type: ignore[assignment]


def _scalar(dtype: Any, content: bytes) -> Any:
    """NumPy's own makes up the content where there is none, at whatever length the dtype says."""
    if len(content) != np.dtype(dtype).itemsize:
        raise ValueError(f"{len(content)} bytes for a number of type {dtype}")
    return np.frombuffer(content, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Codecs are many, and some of them compute; pickles use this one."""
    if encoding not in ("latin1", "latin-1", "bytes"):
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


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
    _refuse_objects(path, loaded, 0, set())
    return loaded


def _refuse_objects(path: Path, value: Any, depth: int, seen: set[int]) -> None:
    """seen: ids of the containers that were looked into; a pickle of some lines can share them in 2³² ways."""
    if depth > 32:
        raise InputError(f"{path}: containers nested deeper than 32")
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise InputError(f"{path}: holds an array of Python objects; only arrays of numbers are read")
    if isinstance(value, dict):
        items: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        items = value
    else:
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for item in items:
        _refuse_objects(path, item, depth + 1, seen)


def load_npy(path: str | Path, max_bytes: int = MAX_BYTES) -> npt.NDArray[Any]:
    """A .npy file without pickles, at most max_bytes once in memory."""
    path = check_size(path, max_bytes)
    try:
        with path.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":  # NumPy would take an archive or a pickle for what they are
                raise ValueError("it does not begin as one")
        loaded = np.load(path, allow_pickle=False)
        assert isinstance(loaded, np.ndarray)
        return loaded
    except Exception as error:  # a damaged header can raise anything
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
            arrays = {name: stored[name] for name in stored.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is no .npy file")
        return arrays
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path} is not a readable .npz file of numbers ({error})") from error


def load_mat(path: str | Path, max_bytes: int = MAX_BYTES, variables: list[str] | None = None) -> dict[str, Any]:
    """The numeric arrays of a MATLAB file of versions 5 to 7.2, at most max_bytes in all once inflated.

    variables: read these only. Every variable must be an array of numbers or of characters, since a cell or a structure
    of a few bytes can claim any number of empty ones. Raises InputError, for MATLAB 7.3 files too (they are HDF5), and
    where a variable that was asked for is not there.
    """
    path = check_size(path, max_bytes)
    content = path.read_bytes()
    if content[:4].count(0):
        raise InputError(f"{path} is no MATLAB file of version 5 or later; save it with `save -v7`")
    _check_elements(path, content, max_bytes)
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


_MAT_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_CHARACTERS, _NUMBERS = 4, range(6, 16)  # classes of arrays
_HEAD = 4096  # of an element, where its class, its shape and its name stand


def _check_elements(path: Path, content: bytes, max_bytes: int) -> None:
    """Refuse what would take more memory than it may: elements are inflated piece by piece, only heads are kept."""
    order: Literal["little", "big"] = "little" if content[126:128] == b"IM" else "big"  # as SciPy
    at, left = _MAT_HEADER, max_bytes
    while at + 8 <= len(content):
        kind = int.from_bytes(content[at : at + 4], order)
        size = int.from_bytes(content[at + 4 : at + 8], order)
        head = content[at : at + _HEAD]
        if kind == _COMPRESSED:
            inflate, head = zlib.decompressobj(), b""
            data = content[at + 8 : at + 8 + size]
            while data and not inflate.eof:
                try:
                    piece = inflate.decompress(data, 1 << 20)
                except zlib.error as error:
                    raise InputError(f"{path} is damaged: {error}") from error
                left -= len(piece)
                head = (head + piece)[:_HEAD]
                if left < 0:
                    raise InputError(f"{path} inflates to more than {max_bytes:,} bytes, the most that is read")
                data = inflate.unconsumed_tail
        if int.from_bytes(head[:4], order) == _MATRIX:
            _check_array(path, head[8:], order, max_bytes)
        at += 8 + size


def _check_array(path: Path, head: bytes, order: Literal["little", "big"], max_bytes: int) -> None:
    """The class and the claimed shape of a variable, whatever its name. head: its flags, shape and name."""

    def number(start: int) -> int:
        return int.from_bytes(head[start : start + 4], order)

    kind, shape_bytes = number(8) & 0xFF, number(20)
    # whole tags, as every writer makes them: another reading of these than SciPy's would check another variable
    if (number(0), number(4), number(16)) != (6, 8, 5) or not 8 <= shape_bytes <= 128:
        raise InputError(f"{path} is damaged: a variable without a class or a shape")
    shape = [number(24 + i) for i in range(0, shape_bytes, 4)]
    at = 24 + -(-shape_bytes // 8) * 8
    short = number(at) >> 16  # a name of up to four letters stands in its tag
    name = (head[at + 4 : at + 4 + short] if short else head[at + 8 : at + 8 + number(at + 4)]).decode("latin1")
    if kind not in _NUMBERS and kind != _CHARACTERS:
        raise InputError(f"{path}: variable {name!r} is no array of numbers, which alone are read")
    if np.prod(shape, dtype=float) > max_bytes:  # a number takes a byte at least
        raise InputError(f"{path}: variable {name!r} claims the shape {tuple(shape)}")
