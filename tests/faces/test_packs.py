"""Packs: one rendering however many ask, the same bytes for any number of workers, damage named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.faces.packs import pack as packs
from mtlsearch.faces.packs import writer as pack_writer
from mtlsearch.faces.packs.pack import Pack, ensure_pack, open_pack, pack_folder
from mtlsearch.faces.rendering.synthetic import Sample, SyntheticRecipe, render_sample

RECIPE = SyntheticRecipe(train=70, val=5, test=3, image_size=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return ensure_pack(RECIPE, tmp_path_factory.mktemp("packs"), workers=2)


@pytest.fixture
def copy(made: Pack, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def test_content_is_what_the_recipe_renders(made: Pack) -> None:
    assert made.counts == {"train": 70, "val": 5, "test": 3}
    assert (made.image_size, made.stored_size, made.recipe) == (32, 40, RECIPE)
    for split, index in (("train", 0), ("train", 69), ("val", 4), ("test", 2)):
        sample, stored = render_sample(RECIPE, split, index), made.split(split)
        np.testing.assert_array_equal(stored.images[index], sample.image)
        for name, values in stored.labels.items():
            np.testing.assert_array_equal(values[index], np.asarray(getattr(sample, name), values.dtype))
    assert not made.split("train").images.flags.writeable


def test_one_worker_and_two_give_the_same_bytes(made: Pack, tmp_path: Path) -> None:
    alone = ensure_pack(RECIPE, tmp_path, workers=1)
    files = sorted(p.name for p in made.folder.iterdir())
    assert files == sorted(p.name for p in alone.folder.iterdir())
    for name in files:
        assert (made.folder / name).read_bytes() == (alone.folder / name).read_bytes(), name
    assert open_pack(alone.folder, verify=True).manifest == made.manifest


def test_a_finished_pack_is_not_rendered_again(made: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(packs, "render_sample", never)
    assert ensure_pack(RECIPE, made.folder.parent).folder == made.folder


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    ensure_pack(SyntheticRecipe(train=40, val=3, test=0, image_size=32), tmp_path, lambda *c: calls.append(c), 2)
    assert calls[-1] == (43, 43) and calls == sorted(calls) and len(calls) >= 3


def test_processes_that_start_together_pack_once(tmp_path: Path) -> None:
    # No __main__ guard, as in a user's script. Every process reports whether it was the one that rendered.
    code = f"""
from mtlsearch.faces.packs import pack as packs
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
rendered, original = [], packs.write_pack
def counted(*arguments):
    rendered.append(1)
    original(*arguments)
packs.write_pack = counted
recipe = SyntheticRecipe(train=24, val=2, test=2, image_size=32, seed=77)
pack = packs.ensure_pack(recipe, {str(tmp_path)!r}, workers=1)
print(len(rendered), packs.checksum(pack.folder / "manifest.json"), pack.split("train").images.sum())
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    answers = []
    for process in running:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        answers.append(out.split())
    assert sum(int(answer[0]) for answer in answers) == 1
    assert len({tuple(answer[1:]) for answer in answers}) == 1
    assert [p.name for p in tmp_path.iterdir() if ".partial" in p.name] == []


def fails_at(stop: int) -> Callable[[SyntheticRecipe, str, int], Sample]:
    def render(recipe: SyntheticRecipe, split: str, index: int) -> Sample:
        if index == stop:
            raise RuntimeError("no")
        return render_sample(recipe, split, index)

    return render


def test_an_interrupted_pack_goes_on(made: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "render_sample", fails_at(35))
    with pytest.raises(RuntimeError, match="no"):
        ensure_pack(RECIPE, tmp_path, workers=1)
    assert not pack_folder(RECIPE, tmp_path).exists()
    rendered = []

    def counting(recipe: SyntheticRecipe, split: str, index: int) -> Sample:
        rendered.append((split, index))
        return render_sample(recipe, split, index)

    monkeypatch.setattr(packs, "render_sample", counting)
    done: list[tuple[int, int]] = []
    pack = ensure_pack(RECIPE, tmp_path, lambda *c: done.append(c), workers=1)
    assert ("train", 0) not in rendered and ("train", 35) in rendered
    assert done[0] == (32, 78) and done[-1] == (78, 78)
    assert pack.manifest == made.manifest
    assert sorted(p.name for p in pack.folder.iterdir()) == sorted(p.name for p in made.folder.iterdir())
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == [pack.folder.name]


@pytest.mark.parametrize("harm", ["image", "label", "journal", "empty", "zeroed", "no plan"])
def test_what_an_interruption_left_is_checked(
    made: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(packs, "render_sample", fails_at(35))
    with pytest.raises(RuntimeError):
        ensure_pack(RECIPE, tmp_path, workers=1)
    monkeypatch.undo()
    partial = tmp_path / f"{pack_folder(RECIPE, tmp_path).name}.partial"
    if harm == "image":
        np.lib.format.open_memmap(partial / "train.images.npy", mode="r+")[3, 4, 5] ^= 1
    elif harm == "label":
        np.lib.format.open_memmap(partial / "train.label.angles.npy", mode="r+")[3] += 1
    elif harm == "journal":
        (partial / "train.journal").write_bytes(b"0 1\n32\nwords\na b\n64 \xff\n999968 0\n1 0\n-32 0\n")
    elif harm in ("empty", "zeroed"):
        for path in partial.glob("*.npy"):
            path.write_bytes(bytes(path.stat().st_size if harm == "zeroed" else 0))
    else:
        (partial / "plan.json").write_text("{")
        with pytest.raises(InputError, match=r"\.partial is in the way.*delete it"):
            ensure_pack(RECIPE, tmp_path, workers=2)
        shutil.rmtree(partial)
    assert ensure_pack(RECIPE, tmp_path, workers=2).manifest == made.manifest


@pytest.mark.parametrize("stage", ["file_facts", "_appear"])
def test_an_interruption_while_finishing_loses_nothing(
    made: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    calls = []
    finishing = getattr(pack_writer, stage)

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == (4 if stage == "file_facts" else 1):
            raise KeyboardInterrupt
        return finishing(*arguments)

    monkeypatch.setattr(pack_writer, stage, interrupted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        ensure_pack(RECIPE, tmp_path, workers=1, say=said.append)
    assert len(said) == 1 and said[0].startswith("checking")
    monkeypatch.undo()
    monkeypatch.setattr(packs, "render_sample", None)
    pack = ensure_pack(RECIPE, tmp_path, workers=1)
    assert pack.manifest == made.manifest
    assert sorted(p.name for p in pack.folder.iterdir()) == sorted(p.name for p in made.folder.iterdir())


@pytest.mark.parametrize("file", ["train.images.npy", "val.labels.npz"])
def test_a_truncated_file_is_named(copy: Path, file: str) -> None:
    whole = (copy / file).read_bytes()
    (copy / file).write_bytes(whole[:-100])
    with pytest.raises(
        InputError,
        match=rf"{file}: expected {len(whole)} bytes, found {len(whole) - 100}.*[Dd]elete the folder",
    ):
        open_pack(copy)
    (copy / file).unlink()
    with pytest.raises(InputError, match=rf"{file}.*missing"):
        open_pack(copy)


def test_a_changed_byte_is_found_when_verified(copy: Path) -> None:
    file = copy / "test.images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    open_pack(copy)
    with pytest.raises(InputError, match=r"test\.images\.npy.*checksum"):
        open_pack(copy, verify=True)


def test_an_image_array_of_another_shape_is_refused(copy: Path) -> None:
    file = copy / "val.images.npy"
    images = np.load(file)
    np.save(file, images.reshape(5, 40, 3, 40))  # as many bytes
    with pytest.raises(InputError, match=r"expected \(5, 40, 40, 3\) uint8"):
        open_pack(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1}', '"text"'])
def test_a_broken_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_pack(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 41},
        {"image_size": "32"},
        {"source": None},
        {"skipped": 3},
        {"recipe": None},
        {"source": "aflw2000"},
        {"source": "x", "ground_truth": "", "published": None, "pose_limit": "far"},
    ],
)
def test_a_manifest_that_does_not_add_up_is_refused(copy: Path, change: dict[str, object]) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(InputError, match=r"manifest\.json: not a readable manifest"):
        open_pack(copy)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("angles", None, "no angles"),
        ("gaze", np.zeros((5, 2)), "'gaze' is no label"),
        ("angles", np.full((5, 3), np.inf, np.float32), "angles holds numbers that are not finite"),
        ("pose", np.full((5, 12), np.nan, np.float32), "pose holds"),
        ("pose", np.zeros((5, 12)), "pose has shape .* type float64"),
        ("landmarks", np.zeros((5, 67, 3), np.float32), "landmarks has shape"),
        ("visible", np.zeros((5, 21), bool), "visible has shape"),
        ("shape", np.zeros((4, 40), np.float32), "shape has shape"),
        ("expression", np.zeros((5, 4_000_000), np.float32), "unpacks to 80"),
    ],
)
def test_labels_that_are_none_are_refused(copy: Path, name: str, array: np.ndarray | None, words: str) -> None:
    file = copy / "val.labels.npz"
    with np.load(file) as stored:
        labels = {**stored, name: array}
    np.savez_compressed(file, **{key: value for key, value in labels.items() if value is not None})
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["val"]["files"][file.name]["bytes"] = file.stat().st_size
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"val\.labels\.npz: .*{words}"):
        open_pack(copy).split("val")


def test_another_format_version_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 9}))
    with pytest.raises(InputError, match="format version 9"):
        open_pack(copy)


def test_a_folder_that_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pack of faces"):
        open_pack(tmp_path)


def test_unknown_split(made: Pack) -> None:
    with pytest.raises(InputError, match="train, val, test"):
        made.split("training")


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pack_writer.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"needs .* MB.* free"):
        ensure_pack(RECIPE, tmp_path)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="MTLSEARCH_CACHE"):
        ensure_pack(RECIPE, tmp_path / "file" / "root")


def test_the_cache_variable_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTLSEARCH_CACHE", str(tmp_path / "here"))
    assert pack_folder(RECIPE).parent == tmp_path / "here"
