"""Packing: labels that follow the crop, splits without leaks, bad samples named, nothing lost."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets import FaceSample, open_basis, open_dataset
from mtlsearch.faces.datasets.aflw2000 import AFLW2000
from mtlsearch.faces.datasets.crops import crop_affine, warp
from mtlsearch.faces.datasets.packing import CropSettings, SplitSettings, pack_dataset, read_names
from mtlsearch.faces.geometry import crop_from_landmarks, project, transform_points
from mtlsearch.faces.morphable.morphable_model import LandmarkBasis
from mtlsearch.faces.packs import writer as pack_writer
from mtlsearch.faces.packs.exporting import LAYOUTS, export_pack
from mtlsearch.faces.packs.pack import Pack, ensure_pack, open_pack
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe

from . import builders


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    recipe = SyntheticRecipe(train=0, val=0, test=12, image_size=150, margin=1.5, seed=5, **builders.FAR)
    return builders.rendered(tmp_path_factory.mktemp("rendered") / "pack", recipe)


@pytest.fixture
def aflw2000(faces: Pack, tmp_path: Path) -> Path:
    return builders.exported(faces, tmp_path / "aflw2000", "aflw2000")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_exported_packs_to_the_same_targets(faces: Pack, tmp_path: Path, layout: str) -> None:
    root = builders.exported(faces, tmp_path / "exported", layout)
    basis = open_basis(root / "basis")
    for name in [layout, *(["300w_lp_3d"] if layout == "300w_lp" else [])]:
        made = pack_dataset(
            open_dataset(name, root, basis), tmp_path / name, CropSettings(225), SplitSettings(0.0), workers=1
        )
        (split,) = made.counts
        again, first = made.split(split).labels, faces.split("test").labels
        assert list(again["name"]) == sorted(again["name"])
        back = np.linalg.inv(np.concatenate([again["crop"], np.tile([[[0, 0, 1.0]]], (12, 1, 1))], 1))[:, :2]
        landmarks = transform_points(again["landmarks"].astype(float), back)
        np.testing.assert_allclose(landmarks[..., :2], first["landmarks"][..., :2], atol=2e-3)
        if landmarks.shape[2] == 3:  # a position map's depth starts at 0
            depth = landmarks[..., 2] - first["landmarks"][..., 2]
            np.testing.assert_allclose(depth - depth[:, :1], 0, atol=2e-3)
        np.testing.assert_allclose(again["angles"], first["angles"], atol=1e-4)
        if "shape" in again:
            np.testing.assert_array_equal(again["shape"], first["shape"])
            np.testing.assert_array_equal(again["expression"], first["expression"])
            rebuilt = (
                basis.mean
                + np.einsum("kcm,nm->nkc", basis.shape, again["shape"])
                + np.einsum("kcm,nm->nkc", basis.expression, again["expression"])
            )
            seen = project(rebuilt, again["pose"].astype(float), made.stored_size)
            np.testing.assert_allclose(seen[..., :2], again["landmarks"][..., :2], atol=2e-3)


def test_an_interrupted_export_goes_on(faces: Pack, tmp_path: Path) -> None:
    whole = builders.exported(faces, tmp_path / "whole", "300w_lp_position_maps")
    stop = 5

    def interrupt(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            export_pack(faces, "test", tmp_path / "again", "300w_lp_position_maps", interrupt)
        assert not (tmp_path / "again").exists()
        stop += 4
    first = next((tmp_path / "again.partial-export").rglob("*_000001_1_0.jpg"))
    first.write_bytes(b"not written again")
    export_pack(faces, "test", tmp_path / "again", "300w_lp_position_maps")
    files = {path.relative_to(whole) for path in whole.rglob("*")}
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*")}
    changed = [f for f in files if f.suffix in (".jpg", ".npy") and
               (whole / f).read_bytes() != (tmp_path / "again" / f).read_bytes()]  # fmt: skip
    assert [path.name for path in changed] == [first.name]


def test_what_stands_in_the_place_of_unfinished_work_is_kept(
    faces: Pack, aflw2000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".partial", ".partial-export"):
        (tmp_path / f"mine{suffix}").mkdir()
        (tmp_path / f"mine{suffix}" / "thesis.txt").write_text("years of work")
    dataset = open_dataset("aflw2000", aflw2000)
    with pytest.raises(InputError, match=r"mine\.partial-export is in the way.*delete it"):
        export_pack(faces, "test", tmp_path / "mine", "aflw2000")
    with pytest.raises(InputError, match=r"mine\.partial is in the way"):
        pack_dataset(dataset, tmp_path / "mine", workers=1)
    with pytest.raises(InputError, match=r"mine\.partial is in the way"):
        ensure_pack(SyntheticRecipe(train=1, val=1, test=1, image_size=32), folder=tmp_path / "mine")
    assert all((tmp_path / f"mine{suffix}" / "thesis.txt").exists() for suffix in (".partial", ".partial-export"))

    # a mistyped option
    def interrupt(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_pack(faces, "test", tmp_path / "other", "aflw2000", interrupt)
    with pytest.raises(InputError, match=r'layout: "aflw2000" there, "300w_lp" now.*delete that folder'):
        export_pack(faces, "test", tmp_path / "other", "300w_lp")
    assert export_pack(faces, "test", tmp_path / "other", "aflw2000") == 12
    monkeypatch.setattr(pack_writer, "_finish_split", lambda *_: interrupt(5, 0))
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(dataset, tmp_path / "pack", CropSettings(64), workers=1)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"facts\.image_size: 64 there, 96 now"):
        pack_dataset(dataset, tmp_path / "pack", CropSettings(96), workers=1)
    assert pack_dataset(dataset, tmp_path / "pack", CropSettings(64), workers=1).counts == {"test": 12}


def test_landmarks_in_two_dimensions_are_exported_where_they_are_enough(faces: Pack, tmp_path: Path) -> None:
    root = builders.exported(faces, tmp_path / "lp", "300w_lp")
    settings = CropSettings(225, 1.0), SplitSettings(0.0)
    flat = pack_dataset(open_dataset("300w_lp", root), tmp_path / "flat", *settings, workers=1)
    assert export_pack(flat, "train", tmp_path / "again", "300w_lp") == 12
    again = pack_dataset(open_dataset("300w_lp", tmp_path / "again"), tmp_path / "pack", *settings, workers=1)
    np.testing.assert_allclose(again.split("train").labels["angles"], flat.split("train").labels["angles"], atol=1e-4)
    with pytest.raises(InputError, match="cannot be exported as aflw2000: it has no 68 landmarks in 3D"):
        export_pack(flat, "train", tmp_path / "other", "aflw2000")


def test_exports_into_this_folder(faces: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export_pack(faces, "test", ".", "aflw2000") == 12
    assert (tmp_path / "here" / "image00001.mat").exists()


def test_two_exports_at_once_make_one(faces: Pack, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(export_pack, faces, "test", tmp_path / "out", "aflw2000") for _ in range(2)]
    errors = [task.exception() for task in both]
    assert sorted(error is None for error in errors) == [False, True]
    assert "is not empty" in str(next(error for error in errors if error))
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 12


def test_interrupted_while_samples_are_left_out(
    aflw2000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work stays until every final file and the manifest are there; then it needs none of it."""
    (aflw2000 / "image00003.jpg").unlink()
    dataset = open_dataset("aflw2000", aflw2000)
    expected = pack_dataset(dataset, tmp_path / "whole", skip_bad=True, workers=1).manifest

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for stage in ("file_facts", "_appear"):
        monkeypatch.setattr(pack_writer, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1)
        monkeypatch.undo()
    monkeypatch.setattr(pack_writer, "_SplitWriter", interrupt)
    made = pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1)
    assert open_pack(made.folder, verify=True).manifest == expected
    assert {path.name for path in made.folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_leaving_samples_out_needs_its_space(aflw2000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (aflw2000 / "image00003.jpg").unlink()
    dataset = open_dataset("aflw2000", aflw2000)
    with pytest.raises(InputError, match="1 of 12"):
        pack_dataset(dataset, tmp_path / "pack", workers=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(InputError, match="leaving the bad samples out needs 1 MB"):
        pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1)
    monkeypatch.undo()
    assert pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1).counts == {"test": 11}


def test_another_basis_or_source_is_another_pack(faces: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = builders.three_ddfa(faces_of_120(tmp_path), tmp_path / "3ddfa")
    basis = open_basis(root / "basis")
    pack_dataset(open_dataset("3ddfa", root, basis), tmp_path / "pack", workers=1)
    turned = LandmarkBasis(basis.mean, basis.shape * 2, basis.expression)
    with pytest.raises(InputError, match="holds another pack: basis_sha256 differ"):
        pack_dataset(open_dataset("3ddfa", root, turned), tmp_path / "pack", workers=1)
    std = (root / "param_std.txt").read_text()
    (root / "param_std.txt").write_text(std.replace("1", "2"))
    with pytest.raises(InputError, match="holds another pack: source_sha256 differ"):
        pack_dataset(open_dataset("3ddfa", root, basis), tmp_path / "pack", workers=1)
    (root / "param_std.txt").write_text(std)
    assert pack_dataset(open_dataset("3ddfa", root, basis), tmp_path / "pack", workers=1).digest


def test_work_on_another_source_is_done_again(aflw2000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    shutil.copytree(aflw2000, other)
    shutil.copy(other / "image00002.jpg", other / "image00001.jpg")
    expected = pack_dataset(open_dataset("aflw2000", other), tmp_path / "expected", workers=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pack_writer, "_finish_split", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(open_dataset("aflw2000", aflw2000), tmp_path / "pack", workers=1)
    monkeypatch.undo()
    assert pack_dataset(open_dataset("aflw2000", other), tmp_path / "pack", workers=1).digest == expected.digest


def faces_of_120(tmp_path: Path) -> Pack:
    return builders.rendered(tmp_path / "rendered")


def test_every_label_is_in_the_pixels_of_the_stored_image(aflw2000: Path, tmp_path: Path) -> None:
    dataset = open_dataset("aflw2000", aflw2000)
    made = pack_dataset(dataset, tmp_path / "pack", CropSettings(96, 1.25), workers=2)
    source = "rendered faces in the layout of aflw2000"
    assert (made.source, made.counts, made.image_size, made.stored_size) == (source, {"test": 12}, 96, 120)
    assert open_pack(made.folder, verify=True).manifest["pose_limit"] == 99.0
    labels = made.split("test").labels
    for i, sample in enumerate(dataset):
        affine = labels["crop"][i]
        np.testing.assert_allclose(labels["landmarks"][i], transform_points(sample.landmarks, affine), atol=1e-4)
        nominal = transform_points(crop_from_landmarks(sample.landmarks).reshape(2, 2), affine).ravel()
        np.testing.assert_allclose(nominal, [11.5, 11.5, 107.5, 107.5], atol=1e-9)
        np.testing.assert_allclose(labels["box"][i].reshape(2, 2)[0], labels["landmarks"][i, :, :2].min(0), atol=1e-4)
        np.testing.assert_allclose(labels["angles"][i], sample.pose, atol=1e-5)


@given(st.floats(0.1, 4), st.floats(-20, 20), st.floats(-20, 20), st.integers(24, 90))
@settings(max_examples=30, deadline=None)
def test_a_dot_stays_where_the_affine_says(scale: float, dx: float, dy: float, size: int) -> None:
    """A smooth dot on a photograph is found at the transformed place to a twentieth of a stored pixel."""
    width = 8 / min(scale, 1)
    side = int(30 * width)
    y, x = np.mgrid[:side, :side]
    at = np.array([side / 2 + dx / 40, side / 2 + dy / 40])
    dot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * (width / 3) ** 2))
    photograph = np.repeat(dot.round().astype(np.uint8)[..., None], 3, 2)
    reach = size / scale
    crop = np.array([*(at - reach / 2 + [dx / 10, dy / 10]), *(at + reach / 2 + [dx / 10, dy / 10])])
    affine = crop_affine(crop, size, size)
    stored = warp(photograph, affine, size)[..., 0].astype(float)
    expected = transform_points(at[None], affine)[0]
    radius = scale * width / 3
    if not ((expected > 3 * radius + 1) & (expected < size - 2 - 3 * radius)).all() or radius < 1:
        return
    rows, columns = np.mgrid[:size, :size]
    centre = np.array([(columns * stored).sum(), (rows * stored).sum()]) / stored.sum()
    np.testing.assert_allclose(centre, expected, atol=0.05)


def test_shrinking_averages_what_it_covers() -> None:
    """A fine checkerboard becomes grey, not a pattern of its own."""
    board = ((np.add.outer(np.arange(400), np.arange(400)) % 2) * 255).astype(np.uint8)
    stored = warp(np.repeat(board[..., None], 3, 2), crop_affine(np.array([9.5, 9.5, 389.5, 389.5]), 60, 60), 60)
    assert np.abs(stored.astype(float) - 127.5).max() < 12
    assert np.abs(stored.astype(float) - 127.5).mean() < 5


def test_a_vast_crop_takes_little_memory() -> None:
    """OpenCV's arrays are NumPy's in Python, so they are traced."""
    tracemalloc.start()
    try:
        stored = warp(np.full((90, 90, 3), 200, np.uint8), crop_affine(np.array([-9e4, -9e4, 9e4, 9e4]), 64, 80), 80)
        assert stored.shape == (80, 80, 3) and tracemalloc.get_traced_memory()[1] < 80e6
    finally:
        tracemalloc.stop()


def test_damage_that_no_loader_foresaw_names_its_sample(
    aflw2000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = AFLW2000._read

    def fails(dataset: AFLW2000, index: int) -> FaceSample:
        if index in (0, 4):
            raise LookupError("unforeseen")
        return read(dataset, index)

    monkeypatch.setattr(AFLW2000, "_read", fails)
    dataset = open_dataset("aflw2000", aflw2000)
    with pytest.raises(InputError, match="image00005: LookupError: unforeseen"):
        pack_dataset(dataset, tmp_path / "pack", workers=1)
    assert pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1).counts == {"test": 10}


def test_beyond_the_photograph_it_is_black() -> None:
    stored = warp(np.full((50, 50, 3), 200, np.uint8), crop_affine(np.array([25.0, 25, 75, 75]), 20, 20), 20)
    assert (stored[:9, :9] == 200).all() and (stored[11:] == 0).all() and (stored[:, 11:] == 0).all()


def damage(root: Path) -> None:
    (root / "image00002.jpg").write_bytes((root / "image00002.jpg").read_bytes()[:300])
    (root / "image00005.jpg").unlink()
    (root / "image00007.mat").write_bytes(b"")
    (root / "image00009.mat").unlink()


def test_bad_samples_are_listed_and_skipped_only_when_asked(aflw2000: Path, tmp_path: Path) -> None:
    good = pack_dataset(open_dataset("aflw2000", aflw2000), tmp_path / "good", workers=1)
    damage(aflw2000)
    dataset = open_dataset("aflw2000", aflw2000)
    with pytest.raises(InputError, match="4 of 12 samples cannot be used") as refused:
        pack_dataset(dataset, tmp_path / "pack", workers=2)
    message = str(refused.value)
    assert all(f"image0000{i}" in message for i in (2, 5, 7, 9)) and "--skip-bad" in message
    assert (tmp_path / "pack.bad.txt").read_text().count("\n") == 4
    assert not (tmp_path / "pack").exists()
    made = pack_dataset(dataset, tmp_path / "pack", skip_bad=True, workers=1)
    assert not (tmp_path / "pack.bad.txt").exists()
    assert made.counts == {"test": 8} and len(made.manifest["skipped"]) == 4
    kept = [i for i in range(12) if i not in (1, 4, 6, 8)]
    np.testing.assert_array_equal(made.split("test").images, good.split("test").images[kept])
    for name, values in made.split("test").labels.items():
        np.testing.assert_array_equal(values, good.split("test").labels[name][kept], err_msg=name)
    open_pack(made.folder, verify=True)
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(path.name for path in good.folder.iterdir())


def test_mended_samples_are_read_again(aflw2000: Path, tmp_path: Path) -> None:
    whole = (aflw2000 / "image00003.jpg").read_bytes()
    (aflw2000 / "image00003.jpg").write_bytes(whole[:100])
    dataset = open_dataset("aflw2000", aflw2000)
    with pytest.raises(InputError, match="1 of 12"):
        pack_dataset(dataset, tmp_path / "pack", workers=1)
    (aflw2000 / "image00003.jpg").write_bytes(whole)
    assert pack_dataset(dataset, tmp_path / "pack", workers=1).counts == {"test": 12}


def test_a_pack_of_other_settings_is_not_taken_for_this_one(aflw2000: Path, tmp_path: Path) -> None:
    dataset = open_dataset("aflw2000", aflw2000)
    first = pack_dataset(dataset, tmp_path / "pack", CropSettings(64), workers=1)
    assert pack_dataset(dataset, tmp_path / "pack", CropSettings(64), workers=1).digest == first.digest
    with pytest.raises(InputError, match="holds another pack: image_size, stored_size differ"):
        pack_dataset(dataset, tmp_path / "pack", CropSettings(96), workers=1)
    for wrong in (lambda: CropSettings(8), lambda: CropSettings(64, 3.0), lambda: SplitSettings(1.0)):
        with pytest.raises(InputError, match="must lie in"):
            wrong()


def test_nothing_readable_is_said_before_anything_is_written(aflw2000: Path, tmp_path: Path) -> None:
    for path in aflw2000.glob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the first 12 samples of .* can be used"):
        pack_dataset(open_dataset("aflw2000", aflw2000), tmp_path / "pack", skip_bad=True)
    assert not list(tmp_path.glob("pack*"))


def w300_lp(folder: Path, photographs: int, variants: int) -> Path:
    for kind in ("AFW", "AFW_Flip"):
        (folder / kind).mkdir(parents=True)
        for p in range(photographs):
            for v in range(variants):
                (folder / kind / f"AFW_{p:05d}_1_{v}.mat").touch()
    return folder


def test_no_photograph_lies_on_both_sides_of_a_split(tmp_path: Path) -> None:
    dataset = open_dataset("300w_lp", w300_lp(tmp_path, 400, 3))
    assigned = SplitSettings(0.1).assign(dataset)
    groups = {split: {dataset.group(i) for i in indices} for split, indices in assigned.items()}
    assert set(groups) == {"train", "val"} and not groups["train"] & groups["val"]
    assert sum(map(len, assigned.values())) == 2400
    assert 20 < len(groups["val"]) < 70
    fewer = open_dataset("300w_lp", w300_lp(tmp_path / "fewer", 200, 2))
    again = SplitSettings(0.1).assign(fewer)
    # a photograph's split depends on its name alone
    assert {fewer.group(i) for i in again["val"]} == {g for g in groups["val"] if int(g.split("_")[1]) < 200}


def test_test_names_take_their_photographs_out_of_training(tmp_path: Path) -> None:
    dataset = open_dataset("300w_lp", w300_lp(tmp_path, 40, 3))
    (tmp_path / "list.txt").write_text("# faces\nAFW/AFW_00003_1_1\n\nAFW_Flip/AFW_00005_1_0\n")
    assigned = SplitSettings(0.2, read_names(tmp_path / "list.txt")).assign(dataset)
    assert [dataset.names[i] for i in assigned["test"]] == ["AFW/AFW_00003_1_1", "AFW_Flip/AFW_00005_1_0"]
    seen = {dataset.group(i) for split in ("train", "val") for i in assigned[split]}
    assert not seen & {"AFW_00003", "AFW_00005"}
    with pytest.raises(InputError, match="1 test names are not in"):
        SplitSettings(0.2, frozenset({"AFW/none"})).assign(dataset)
    with pytest.raises(InputError, match="cannot read the list"):
        read_names(tmp_path / "none.txt")


def test_packs_of_21_points(faces: Pack, tmp_path: Path) -> None:
    made = pack_dataset(open_dataset("aflw", builders.aflw(faces, tmp_path / "aflw")), tmp_path / "pack", workers=1)
    labels = made.split("train").labels
    assert labels["landmarks"].shape[1:] == (21, 2) and labels["visible"].shape[1:] == (21,)
    assert {"pose", "shape"}.isdisjoint(labels) and np.isfinite(labels["angles"]).all()
    assert made.basis is None and json.loads((made.folder / "manifest.json").read_text())["files"] == {}
