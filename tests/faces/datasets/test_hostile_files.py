"""Files that are damaged, missing or made to harm: named, refused, and neither run nor given memory."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sqlite3
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets import open_basis, open_dataset
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.datasets.packing import pack_dataset
from mtlsearch.faces.datasets.three_ddfa import read_list
from mtlsearch.faces.packs.inspection import describe
from mtlsearch.faces.packs.pack import Pack

from . import builders


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return builders.rendered(tmp_path_factory.mktemp("rendered") / "pack")


@contextmanager
def little_memory(megabytes: float = 30) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1)])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.jpg"
    path.write_bytes(png(*size))
    with little_memory(), pytest.raises(InputError, match=r"bomb\.jpg"):
        load_image(path)


def test_a_real_decompression_bomb_is_refused(tmp_path: Path) -> None:
    """A bitmap of 400 million pixels in 60 kB."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(buffer.getvalue())
    assert len(buffer.getvalue()) < 100_000
    with little_memory(), pytest.raises(InputError, match=r"20000×20000|400000000 pixels"):
        load_image(path)


def test_images_cut_short_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    path = tmp_path / "face.jpg"
    for content in (b"", whole[:20], whole[: len(whole) // 2], b"GIF89a" + whole, whole[:200] + whole[260:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"face\.jpg"):
            load_image(path)
    with pytest.raises(InputError, match=r"none\.jpg: No such file"):
        load_image(tmp_path / "none.jpg")
    path.write_bytes(whole)
    assert load_image(path).shape == (90, 90, 3)


def test_an_orientation_in_the_file_is_not_applied(tmp_path: Path) -> None:
    """Annotations are in the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").shape == (20, 40, 3)


def test_a_mat_bomb_is_refused(faces: Pack, tmp_path: Path) -> None:
    """Two compressed gigabytes of zeros, in the variable that is read."""
    root = builders.exported(faces, tmp_path / "aflw2000", "aflw2000")
    inflated = 2 << 30
    head = struct.pack("<II", 6, 8) + struct.pack("<II", 6, 0) + struct.pack("<II", 5, 8)
    head += struct.pack("<ii", inflated // 8, 1) + struct.pack("<II", 1, 9) + b"Pose_Para".ljust(16, b"\0")
    squeeze = zlib.compressobj(9)
    body = squeeze.compress(struct.pack("<II", 14, len(head) + 8 + inflated) + head + struct.pack("<II", 9, inflated))
    body += squeeze.flush(zlib.Z_FULL_FLUSH)
    # after a full flush a block stands for itself, and can be repeated
    body += (squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)) * (inflated >> 24)
    path = root / "image00001.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(body)) + body)
    assert path.stat().st_size < 4e6
    with little_memory(), pytest.raises(InputError, match=r"image00001\.mat inflates"):
        open_dataset("aflw2000", root)[0]


class _Runs:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_3ddfa_cannot_run_code(faces: Pack, tmp_path: Path, protocol: int) -> None:
    root = builders.three_ddfa(faces, tmp_path / "3ddfa")
    dataset = open_dataset("3ddfa", root, open_basis(root / "basis"))
    evil = [np.zeros((4, 62), np.float32), _Runs(str(tmp_path / "ran"))]
    (root / "param_all_norm.pkl").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(InputError, match="only NumPy arrays"):
        dataset[0]
    assert not (tmp_path / "ran").exists()


def test_parameters_of_another_length_are_refused(faces: Pack, tmp_path: Path) -> None:
    root = builders.three_ddfa(faces, tmp_path / "3ddfa")
    dataset = open_dataset("3ddfa", root, open_basis(root / "basis"))
    (root / "param_all_norm.pkl").write_bytes(pickle.dumps(np.zeros((3, 62), np.float32)))
    with pytest.raises(InputError, match=r"\(4, 62\) floats like the list of files, found \(3, 62\)"):
        dataset[0]


def test_an_archive_with_a_bomb_or_a_hole(faces: Pack, tmp_path: Path) -> None:
    root = builders.three_ddfa(faces, tmp_path / "3ddfa")
    names = (root / "train_aug_120x120.list.train").read_text().split()
    with zipfile.ZipFile(root / "train_aug_120x120.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"train_aug_120x120/{names[0]}", "w", force_zip64=True) as member:
            for _ in range(80):
                member.write(bytes(1 << 20))
        archive.writestr(f"train_aug_120x120/{names[1]}", png(60_000, 60_000))
    dataset = open_dataset("3ddfa", root, open_basis(root / "basis"))
    with little_memory():
        for index, words in (
            (0, "unpacks to 83,886,080 bytes"),
            (1, "60000×60000|3600000000 pixels"),
            (2, "has no member"),
        ):
            with pytest.raises(InputError, match=words):
                dataset[index]


@pytest.mark.parametrize("harm", ["content", "version"])
def test_archives_of_damaged_or_unknown_compression_are_named(faces: Pack, tmp_path: Path, harm: str) -> None:
    """Damaged LZMA raises an error of its own, a version of the future another."""
    root = builders.three_ddfa(faces, tmp_path / "3ddfa")
    path = root / "train_aug_120x120.zip"
    name = (root / "train_aug_120x120.list.train").read_text().split()[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(f"train_aug_120x120/{name}", bytes(range(256)) * 200)
    content = bytearray(path.read_bytes())
    if harm == "content":
        start = content.index(name.encode()) + len(name) + 9  # after the properties of LZMA
        content[start : start + 40] = b"\xff" * 40
    else:
        content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)
    dataset = open_dataset("3ddfa", root, open_basis(root / "basis"))
    with pytest.raises(InputError, match=r"train_aug_120x120\.zip"):
        dataset[0]


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.jpg"])
def test_lists_cannot_lead_out_of_the_data_set(faces: Pack, tmp_path: Path, name: str) -> None:
    root = builders.three_ddfa(faces, tmp_path / "3ddfa")
    (root / "train_aug_120x120.list.train").write_text(f"{name}\n")
    with pytest.raises(InputError, match="outside the data set"):
        open_dataset("3ddfa", root, open_basis(root / "basis"))


def test_names_in_a_list_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("one face.jpg\r\n\n two.jpg \n")
    assert read_list(tmp_path / "list") == ["one face.jpg", "two.jpg"]


def harm_database(root: Path, script: str) -> None:
    with sqlite3.connect(root / "aflw.sqlite") as database:
        database.executescript(script)
    database.close()


def test_a_database_that_computes_is_refused(faces: Pack, tmp_path: Path) -> None:
    """A view in a table's place could count for ever; the columns are generated otherwise."""
    root = builders.aflw(faces, tmp_path / "aflw")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS face_id, 0 AS x FROM n"
    harm_database(root, f"DROP TABLE FaceRect; CREATE VIEW FaceRect AS {endless};")
    with pytest.raises(InputError, match="no plain table FaceRect"):
        open_dataset("aflw", root)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("UPDATE FaceImages SET filepath = '../../../secret.jpg'", "outside it"),
        ("UPDATE FaceImages SET filepath = '0/a' || char(0) || '.jpg'", "0/a"),
        ("UPDATE FaceRect SET w = 0", "the rectangle"),
        ("UPDATE FaceRect SET w = 100000000, h = 100000000", "box lies 1e.08 pixels off"),
        ("UPDATE FacePose SET yaw = 'left'", "seven finite numbers"),
        ("UPDATE FacePose SET yaw = 9e999", "seven finite numbers"),
        ("UPDATE FeatureCoords SET x = NULL", "two finite numbers"),
        ("INSERT INTO FacePose SELECT * FROM FacePose", "lists a face twice"),
        ("DROP TABLE FacePose", "no plain table FacePose"),
        (
            "UPDATE FaceImages SET file_id = 'x'; UPDATE Faces SET file_id = 'x';"
            "INSERT INTO FaceImages WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) "
            "SELECT i, 'flickr', 'x', '0/x.jpg', 0, 1, 1 FROM n",
            "1,000,000 rows or more",
        ),
        ("DELETE FROM FeatureCoords", "nothing of data set aflw"),
    ],
)
def test_a_database_with_nonsense_is_refused(faces: Pack, tmp_path: Path, script: str, words: str) -> None:
    root = builders.aflw(faces, tmp_path / "aflw")
    harm_database(root, script)
    with pytest.raises(InputError, match=words):
        pack_dataset(open_dataset("aflw", root), tmp_path / "pack", workers=1)


def test_one_bad_row_is_one_bad_sample(faces: Pack, tmp_path: Path) -> None:
    root = builders.aflw(faces, tmp_path / "aflw")
    harm_database(
        root,
        "UPDATE FacePose SET yaw = NULL WHERE face_id = 39341;"
        "UPDATE FeatureCoords SET x = 'left' WHERE face_id = 39343 AND feature_id = 1;"
        "UPDATE FeatureCoords SET x = 'left' WHERE face_id = 39343 AND feature_id = 15;"
        "DELETE FROM FaceRect WHERE face_id = 39345; DELETE FROM FeatureCoords WHERE face_id = 39346;",
    )
    dataset = open_dataset("aflw", root)
    assert dataset.names == ["39341", "39342", "39343", "39344"] and dataset.left_out == 2
    with pytest.raises(InputError, match="2 of 4 samples"):
        pack_dataset(dataset, tmp_path / "pack", workers=1)
    made = pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1)
    assert made.split("train").labels["name"].tolist() == ["39342", "39344"]
    assert all(f"face {name} of" in " ".join(made.manifest["skipped"]) for name in (39341, 39343))
    assert any("2 faces of it lack" in line for line in describe(made))


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "aflw.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(InputError, match=r"aflw\.sqlite"):
        open_dataset("aflw", tmp_path)
    (tmp_path / "aflw.sqlite").unlink()
    with pytest.raises(InputError, match=r"cannot read .*aflw\.sqlite"):
        open_dataset("aflw", tmp_path)


def far(x: float) -> np.ndarray:
    """Landmarks spread over the image, the first one far from it."""
    points = np.random.default_rng(0).uniform(10, 110, (3, 68))
    points[0, 0] = x
    return points


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pt3d_68": far(12_000)}, "landmarks lies 1.2e.04 pixels off, the image has 120×120"),
        ({"pt3d_68": far(-1e30)}, "landmarks lies 1e.30 pixels off"),
        ({"Pose_Para": np.array([[0, 2000.0, 0, 60, 60, 0, 1]])}, "angles"),
        ({"Pose_Para": np.array([[0, 0, 0, 60, 60, 0, 1e300]])}, "parameters"),
        ({"Pose_Para": np.zeros((1, 5))}, "Pose_Para must hold at least 7"),
        ({"Pose_Para": np.zeros((1, 7))}, "scale"),
        ({"Pose_Para": np.full((1, 7), np.nan)}, "not finite"),
        ({"Shape_Para": np.zeros((3, 1))}, "Shape_Para must hold at least 40"),
        ({"pt3d_68": np.zeros((3, 21))}, r"\(3, 68\)"),
        ({"pt3d_68": np.full((3, 68), np.nan)}, "not finite"),
        ({"pt3d_68": np.zeros((3, 68))}, "smaller than a pixel"),
        ({"pt3d_68": None}, "no variable pt3d_68"),
    ],
)
def test_annotations_of_other_shapes_are_refused(
    faces: Pack, tmp_path: Path, change: dict[str, np.ndarray | None], words: str
) -> None:
    root = builders.exported(faces, tmp_path / "aflw2000", "aflw2000")
    path = root / "image00001.mat"
    variables = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")} | change
    scipy.io.savemat(path, {k: v for k, v in variables.items() if v is not None})
    with pytest.raises(InputError, match=words) as refused:
        open_dataset("aflw2000", root)[0]
    assert "image00001" in str(refused.value)


def test_position_maps_of_other_shapes_are_refused(faces: Pack, tmp_path: Path) -> None:
    root = builders.exported(faces, tmp_path / "maps", "300w_lp_position_maps")
    dataset = open_dataset("300w_lp_position_maps", root)
    path = root / f"{dataset.names[0]}.npy"
    for array in (np.zeros((64, 64, 3), np.float32), np.zeros((256, 256), np.float32), np.zeros((256, 256, 3), int)):
        np.save(path, array)
        with pytest.raises(InputError, match=r"places outside|floats"):
            dataset[0]
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        dataset[0]
    shutil.copy(root / "uv_kpt_ind.txt", tmp_path)
    (root / "uv_kpt_ind.txt").write_text("1 2 3\n")
    with pytest.raises(InputError, match="2 rows"):
        open_dataset("300w_lp_position_maps", root)[1]
