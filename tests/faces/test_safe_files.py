"""Files that would run code or fill the memory are refused; honest ones are read."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mtlsearch.errors import InputError
from mtlsearch.faces.packs.safe_files import load_mat, load_npy, load_npz, load_pickle


class _Shell:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = {"param_mean": np.arange(62, dtype=np.float32), "names": ["a.jpg"], "one": np.float64(2.5)}
    arrays["turned"] = np.asfortranarray(np.arange(6).reshape(2, 3))
    path = tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol))
    loaded = load_pickle(path)
    assert loaded["names"] == ["a.jpg"] and loaded["one"] == 2.5
    np.testing.assert_array_equal(loaded["param_mean"], arrays["param_mean"])
    np.testing.assert_array_equal(loaded["turned"], arrays["turned"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(2), "b": _Shell()}, protocol))
    with pytest.raises(InputError, match="only NumPy arrays"):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()


def test_pickles_that_name_dangerous_numpy_or_builtins_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    for module, name in (
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy.lib.format", "open_memmap"),
        ("os", "system"),
    ):
        path.write_bytes(f"c{module}\n{name}\n(S'x'\ntR.".encode())
        with pytest.raises(InputError, match=name):
            load_pickle(path)


def test_a_pickle_cannot_ask_for_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.")
    with pytest.raises(InputError, match="1000000000000"):
        load_pickle(path)
    path.write_bytes(b"cnumpy\nndarray\n((I1000000000000\nttR.")
    with pytest.raises(InputError):
        load_pickle(path)
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # a memo of two thousand million entries
    assert load_pickle(path) == []
    path.write_bytes(pickle.dumps(np.array([{}, []], dtype=object)))
    with pytest.raises(InputError):
        load_pickle(path)
    with pytest.raises(InputError, match="at most 10"):
        load_pickle(path, max_bytes=10)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",  # a bytearray of a terabyte
        b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little") + b".",  # bytes
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V2000000000'\ntRtR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V2000000000'\ntRS'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVzlib_codec\ntR.",
    ],
)
def test_pickles_claim_no_more_than_they_hold(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"bomb\.pkl"):
            load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def mat_variable(kind: int, shape: tuple[int, int], name: bytes, compressed: bool) -> bytes:
    """A MATLAB 5 file with the head of one variable, whose content is missing."""

    def element(number: int, content: bytes) -> bytes:
        return struct.pack("<II", number, len(content)) + content + bytes(-len(content) % 8)

    named = struct.pack("<HH4s", 1, len(name), name) if len(name) < 5 else element(1, name)
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *shape)) + named
    variable = struct.pack("<II", 14, len(head) + 8) + head + element(1, b"")
    if compressed:
        packed = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM" + variable


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", [b"Pose_Para", b"u"])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 16, 17])
def test_mat_variables_claim_no_more_than_they_hold(tmp_path: Path, kind: int, name: bytes, compressed: bool) -> None:
    """Cells, structures and characters of a few bytes for which SciPy allocates what their shape says."""
    path = tmp_path / "bomb.mat"
    path.write_bytes(mat_variable(kind, (2_000_000_000, 1), name, compressed))
    tracemalloc.start()
    try:
        for variables in (None, [name.decode()], ["pt2d"]):
            with pytest.raises(InputError, match=rf"bomb\.mat.*{name.decode()}"):
                load_mat(path, 1 << 24, variables)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("order", [b"IM", b"XX"])
def test_a_shape_in_a_short_tag_is_refused(tmp_path: Path, order: bytes) -> None:
    """SciPy reads it; and it takes for big-endian what does not say that it is little-endian."""
    path, sign, version = tmp_path / "bomb.mat", *(("<", b"\0\1") if order == b"IM" else (">", b"\1\0"))
    short = struct.pack("<HHi" if sign == "<" else ">HHi", *((5, 4) if sign == "<" else (4, 5)), 400_000_000)
    named = struct.pack(f"{sign}II", 1, 9) + b"Pose_Para" + bytes(7)
    body = struct.pack(f"{sign}IIII", 6, 8, 1, 0) + short + named
    content = b"MATLAB 5.0 MAT-file".ljust(124) + version + order + struct.pack(f"{sign}II", 14, len(body)) + body
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.mat is damaged: a variable without"):
        load_mat(path, 1 << 24, ["Pose_Para"])


def test_shared_lists_are_looked_into_once(tmp_path: Path) -> None:
    shared: list = []
    for _ in range(30):
        shared = [shared] * 8
    path = tmp_path / "lists.pkl"
    path.write_bytes(pickle.dumps(shared))
    start = time.monotonic()
    load_pickle(path)
    assert time.monotonic() - start < 5


def test_other_things_named_npy_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    head = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    for content in ((tmp_path / "a.npz").read_bytes(), head + b"(" * 118, head + b"{" + b"(" * 100 + b" " * 17):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npy is not a readable"):
            load_npy(tmp_path / "a.npy")


def test_a_mat_file_of_version_4_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.mat"
    scipy.io.savemat(path, {"x": np.eye(3)}, format="4")
    with pytest.raises(InputError, match=r"old\.mat.*save -v7"):
        load_mat(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"not a pickle", b"\x80\x04." * 3])
def test_damaged_pickles_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pkl"):
        load_pickle(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_mat_files_are_read_and_bombs_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(
        path, {"Pose_Para": np.arange(7.0)[None], "zeros": np.zeros((400, 500))}, do_compression=compressed
    )
    np.testing.assert_array_equal(load_mat(path)["Pose_Para"], np.arange(7.0)[None])
    assert list(load_mat(path, variables=["Pose_Para"])) == ["Pose_Para"]
    with pytest.raises(InputError, match=r"at most|more than"):
        load_mat(path, max_bytes=1_000_000)
    with pytest.raises(InputError, match="no variable pt2d"):
        load_mat(path, variables=["pt2d"])


def test_damaged_mat_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": np.random.default_rng(0).random((50, 50))}, do_compression=True)
    whole = path.read_bytes()
    for content in (b"", whole[:150], whole[:-200], whole[:300] + zlib.compress(b"no") + whole[320:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.mat"):
            load_mat(path)


def test_arrays_without_pickles_and_without_bombs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    np.testing.assert_array_equal(load_npy(tmp_path / "a.npy"), np.arange(5))
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1_000_000))
    assert load_npz(tmp_path / "a.npz")["x"].shape == (1_000_000,)
    with pytest.raises(InputError, match="unpacks to"):
        load_npz(tmp_path / "a.npz", max_bytes=100_000)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"o\.npy"):
        load_npy(tmp_path / "o.npy")
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"
    (tmp_path / "bomb.npy").write_bytes(header + text.ljust(117).encode() + b"\n")
    with pytest.raises(InputError, match=r"bomb\.npy"):
        load_npy(tmp_path / "bomb.npy")
    with pytest.raises(InputError, match="cannot read"):
        load_npy(tmp_path / "none.npy")
