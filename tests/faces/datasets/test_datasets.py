"""Every published layout, written from our own faces with known truth and read back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets import DATASETS, FaceDataset, open_basis, open_dataset
from mtlsearch.faces.datasets.images import load_image
from mtlsearch.faces.datasets.origin import ORIGIN_FILE
from mtlsearch.faces.datasets.packing import pack_dataset
from mtlsearch.faces.datasets.w300_lp import photograph
from mtlsearch.faces.geometry import box_of_landmarks, transform_points
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.packs.exporting import export_pack
from mtlsearch.faces.packs.pack import Pack, open_pack

from . import builders


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return builders.rendered(tmp_path_factory.mktemp("rendered") / "pack")


@pytest.fixture(scope="module")
def roots(faces: Pack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("published")
    roots = {
        "aflw2000": builders.exported(faces, base / "aflw2000", "aflw2000"),
        "300w_lp": builders.exported(faces, base / "300w_lp", "300w_lp"),
        "300w_lp_position_maps": builders.exported(faces, base / "maps", "300w_lp_position_maps"),
        "3ddfa": builders.three_ddfa(faces, base / "3ddfa"),
        "aflw": builders.aflw(faces, base / "aflw"),
        "aflw_3ddfa": builders.aflw_3ddfa(faces, base / "aflw_3ddfa"),
    }
    builders.reannotated(roots["aflw2000"], 2.0)
    return {**roots, "aflw2000_reannotated": roots["aflw2000"], "300w_lp_3d": roots["300w_lp"]}


@pytest.fixture
def opened(roots: dict[str, Path]) -> Callable[[str], FaceDataset]:
    def open_it(name: str) -> FaceDataset:
        basis = open_basis(roots[name] / "basis") if DATASETS[name].needs_basis else None
        return open_dataset(name, roots[name], basis)

    return open_it


def test_every_data_set_is_tested(roots: dict[str, Path]) -> None:
    assert set(roots) == set(DATASETS)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_samples_are_what_was_written(faces: Pack, opened: Callable[[str], FaceDataset], name: str) -> None:
    dataset, truth = opened(name), faces.split("test")
    assert len(dataset) == len(list(dataset)) == len(truth) == 6
    assert len(set(dataset.names)) == 6
    for i, sample in enumerate(dataset):
        assert sample.name == dataset.names[i]
        points = truth.labels["landmarks"][i].astype(float)
        if name == "aflw2000_reannotated":
            points = points + np.array([2.0, 0, 0])
        expected = points if DATASETS[name].points == 68 else to_21_points(points[None])[0]
        dimensions = sample.landmarks.shape[1]
        seen = sample.landmarks[sample.visible], expected[sample.visible]
        np.testing.assert_allclose(seen[0][:, :2], seen[1][:, :2], atol=2e-4)
        if dimensions == 3:  # a position map's depth starts at 0
            depths = sample.landmarks[:, 2] - expected[:, 2]
            np.testing.assert_allclose(depths - depths[0], 0, atol=2e-3)
        if sample.parameters is not None:
            written = [truth.labels[label][i] for label in ("pose", "shape", "expression")]
            # t_z carries no information in an image, and 3DDFA's files keep it as it is
            np.testing.assert_allclose(sample.parameters, np.concatenate(written), atol=5e-4)
        angles = truth.labels["angles"][i].astype(float)
        if name == "aflw_3ddfa":
            assert np.isnan(sample.pose[[0, 2]]).all() and sample.pose[1] == pytest.approx(angles[1])
        else:
            assert builders.rotation_error(sample.pose, angles) < 1e-4
        assert np.abs(sample.image.astype(int) - truth.images[i]).mean() < 9  # JPEG, of noise too
        assert sample.crop[2] - sample.crop[0] == pytest.approx(sample.crop[3] - sample.crop[1])
        if DATASETS[name].points == 68:
            assert sample.visible.all()
            np.testing.assert_allclose(sample.box, box_of_landmarks(sample.landmarks))
        else:
            assert 0 < sample.visible.sum() < 21 or sample.visible.all()


def test_photograph_pixels_of_a_published_crop(faces: Pack, opened: Callable[[str], FaceDataset]) -> None:
    sample = opened("aflw_3ddfa")[0]
    assert sample.original is not None
    points = to_21_points(faces.split("test").labels["landmarks"][:1, :, :2].astype(float))[0]
    photograph_pixels = transform_points(sample.landmarks, sample.original)
    np.testing.assert_allclose(
        photograph_pixels[sample.visible], ((points + 1) * 3 + [40, 60])[sample.visible], atol=1e-3
    )


def test_angles_beyond_90_are_kept(roots: dict[str, Path], tmp_path: Path) -> None:
    """AFLW's yaw of 120° is another face's (pitch + 180, 60, roll + 180): no inverse of the matrix gives it back."""
    import sqlite3

    root = shutil.copytree(roots["aflw"], tmp_path / "aflw")
    with sqlite3.connect(root / "aflw.sqlite") as database:
        database.execute("UPDATE FacePose SET yaw = ?, pitch = ?, roll = ?", (np.radians(120), 0.1, -0.2))
    database.close()
    np.testing.assert_allclose(open_dataset("aflw", root)[0].pose, np.degrees([0.1, np.radians(120), 0.2]), atol=1e-9)


def test_3ddfa_reads_a_folder_as_it_reads_the_archive(
    faces: Pack, opened: Callable[[str], FaceDataset], tmp_path: Path
) -> None:
    zipped = opened("3ddfa")
    root = builders.three_ddfa(faces, tmp_path / "folder", zipped=False)
    plain = open_dataset("3ddfa", root, zipped.basis)
    np.testing.assert_array_equal(zipped[2].image, plain[2].image)
    assert [zipped.split(i) for i in range(6)] == ["train"] * 4 + ["val"] * 2


def test_names_of_one_photograph() -> None:
    assert photograph("AFW/AFW_134212_1_0") == photograph("AFW_Flip/AFW_134212_1_12") == "AFW_134212"
    assert photograph("IBUG/IBUG_image_008_1_0") == "IBUG_image_008"
    assert photograph("HELEN/HELEN_1003168765_1_3") != photograph("HELEN/HELEN_1003168766_1_3")


def test_the_data_variable_names_the_root(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTLSEARCH_DATA", str(roots["aflw2000"].parent))
    assert len(open_dataset("aflw2000", "aflw2000")) == 6
    with pytest.raises(InputError, match="MTLSEARCH_DATA"):
        open_dataset("aflw2000", "elsewhere")


def test_wrong_use_is_said_clearly(roots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'aflw2000'"):
        open_dataset("aflw200", roots["aflw2000"])
    with pytest.raises(InputError, match=r"u_base\.txt"):
        open_dataset("300w_lp_3d", roots["300w_lp"])
    with pytest.raises(InputError, match=r"nothing of data set aflw2000.*docs/data\.md"):
        open_dataset("aflw2000", tmp_path)
    with pytest.raises(IndexError, match="6 samples"):
        open_dataset("aflw2000", roots["aflw2000"])[6]


def test_exported_faces_say_what_they_are(tmp_path: Path) -> None:
    """Wherever below or above its folder a data set is opened, and however often it goes out and in again."""
    pack = builders.rendered(tmp_path / "rendered")
    lp = builders.exported(pack, tmp_path / "lp", "300w_lp")
    for root in (lp, lp / "Synthetic", tmp_path):
        opened = open_dataset("300w_lp", root)
        assert opened.source == "rendered faces in the layout of 300w_lp" and opened.published is None
    flat = pack_dataset(open_dataset("300w_lp_3d", lp, open_basis(lp / "basis")), tmp_path / "flat", workers=1)
    assert flat.rendered and open_pack(flat.folder).rendered
    export_pack(flat, "train", tmp_path / "again", "aflw2000")
    again = open_dataset("aflw2000", tmp_path / "again")
    assert again.source == "rendered faces in the layout of aflw2000" and again.published is None
    (tmp_path / "again" / ORIGIN_FILE).write_text("[]")
    with pytest.raises(InputError, match=f"{ORIGIN_FILE} does not say where these faces come from"):
        open_dataset("aflw2000", tmp_path / "again")


def test_photographs_that_were_exported_are_not_the_published_ones(tmp_path: Path) -> None:
    folder = builders.exported(builders.rendered(tmp_path / "rendered"), tmp_path / "files", "aflw2000")
    (folder / ORIGIN_FILE).unlink()  # as if their authors had given them
    pack = pack_dataset(open_dataset("aflw2000", folder, open_basis(folder / "basis")), tmp_path / "pack", workers=1)
    assert (pack.source, pack.manifest["published"], pack.rendered) == ("aflw2000", 2000, False)
    export_pack(pack, "test", tmp_path / "again", "aflw2000")
    again = open_dataset("aflw2000", tmp_path / "again")
    assert (again.source, again.published) == ("aflw2000 faces in the layout of aflw2000", None)


@pytest.mark.parametrize("upright", [False, True])
def test_16_bits_of_grey_become_8(tmp_path: Path, upright: bool) -> None:
    shades = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(shades).save(tmp_path / "deep.png")
    image = load_image(tmp_path / "deep.png", upright=upright)
    assert image.shape == (1, 5, 3) and image[0].tolist() == [[shade] * 3 for shade in (0, 0, 1, 128, 255)]
