"""`python -m mtlsearch.evaluate` on faces: what is printed, what stands apart, what is written."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from mtlsearch.faces.datasets import open_dataset, packing
from mtlsearch.faces.datasets.aflw2000 import AFLW2000
from mtlsearch.faces.datasets.origin import ORIGIN_FILE
from mtlsearch.faces.datasets.packing import CropSettings, pack_dataset
from mtlsearch.faces.evaluation.accumulator import FaceScores
from mtlsearch.faces.evaluation.checkpoint_evaluation import Cost, Evaluation
from mtlsearch.faces.evaluation.published import SIZES, published_for
from mtlsearch.faces.evaluation.scoreboard import scoreboard
from mtlsearch.faces.targets import Prediction
from mtlsearch.training import evaluate_checkpoint
from tests.commands.test_commands import ROOT, call


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def evaluate(*arguments: object, status: int = 0) -> str:
        words = [str(argument) for argument in arguments]
        code, out, error = call("evaluate", *words, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
        assert code == status, out + error
        return out if status == 0 else error

    return evaluate


def _line(out: str, beginning: str) -> list[str]:
    """The words of the one line that begins so."""
    (line,) = (line for line in out.splitlines() if line.startswith(beginning))
    return line.removeprefix(beginning).split()


def test_its_own_data_beside_the_papers_and_apart_from_them(run, morphable_checkpoint: Path) -> None:
    out = run(morphable_checkpoint, "--threads", "1")
    scores = evaluate_checkpoint(morphable_checkpoint, "test")
    own = _line(out, "this checkpoint")
    names = ("nme_0_30", "nme_30_60", "nme_60_90", "nme", "nme_whole", "mae_yaw", "mae_pitch", "mae_roll", "mae")
    assert own[:9] == [f"{scores.metrics[name]:.3f}" for name in names]
    assert own[-1] == "synthetic" and len(own) == 9 + 8, "parameters, active ones and MACs with their units, images/s"
    constant = [float(word) for word in _line(out, "constant prediction")[:9]]
    assert constant == pytest.approx([scores.trivial[name] for name in names], abs=2e-3)
    for name, value in scores.metrics.items():
        assert _line(out, f"{name} ")[0] == f"{value:.3f}"
    published = out.index("AFLW2000-3D, as published: other data than above, so the two tables do not compare")
    assert out.index("this checkpoint") < out.index("no evidence for accuracy on photographs") < published
    assert published < out.index("MobileNetV3-Small") and "36.04 M" in out
    assert "fits no ResNet-18" in out and "SynergyNet ?" in out
    assert f"{scores.parameters:,} parameters, " in out and "million MACs" in out
    assert "images/s at batch 1, " in out and "images/s at batch 32 (CPU, 1 thread" in out


def test_other_splits_and_sizes_of_its_data(run, morphable_checkpoint: Path) -> None:
    assert "synthetic, val split, 68 points; 48 images" in run(morphable_checkpoint, "--split", "val")
    assert "10 images" in run(morphable_checkpoint, "--set", "data.test=10")
    error = run(morphable_checkpoint, "--set", "losses.pose.weight=2", status=2)
    assert "losses belongs to the trained weights" in error


def test_a_data_set_in_its_own_layout_and_the_same_as_a_pack(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTLSEARCH_DATA", str(photographs.parent))
    out = run(morphable_checkpoint, "--data", "aflw2000", "--root", photographs.name)
    assert "rendered faces in the layout of aflw2000, test split, 68 points; 48 images" in out
    assert "other data than above, so the two tables do not compare" in out
    assert "no evidence for accuracy on photographs" in out
    pack_dataset(open_dataset("aflw2000", photographs), tmp_path / "pack", CropSettings(32, 1.0))
    again = run(morphable_checkpoint, "--pack", "pack", "--figures", "seen")
    written = json.loads((tmp_path / "seen" / "evaluation.json").read_text())
    assert written["rendered"] and written["data"] == "rendered faces in the layout of aflw2000"
    assert _line(again, "this checkpoint")[:15] == _line(out, "this checkpoint")[:15], "all but images/s"
    assert "mean face of the test split itself" in again
    larger = pack_dataset(open_dataset("aflw2000", photographs), tmp_path / "larger", CropSettings(48, 1.25))
    resized = run(morphable_checkpoint, "--pack", larger.folder)
    ours, theirs = (float(_line(text, "this checkpoint")[3]) for text in (out, resized))
    assert theirs == pytest.approx(ours, rel=0.02), "the same faces at another size"


def test_a_data_set_is_packed_once_and_again_when_it_changes(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MTLSEARCH_CACHE", str(cache))
    files = Path(shutil.copytree(photographs, tmp_path / "files"))
    damaged = files / "image00003.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:300])
    arguments = (morphable_checkpoint, "--data", "aflw2000", "--root", "files")
    error = run(*arguments, status=2)
    listed = next(cache.glob("*.bad.txt"))
    assert str(listed) in error and "image00003" in listed.read_text() and list(cache.glob("*.partial"))
    assert "; 47 images" in run(*arguments, "--skip-bad")
    assert not list(cache.glob("*.partial")), "the work was gone on with"
    assert "1 samples cannot be used" in run(*arguments, status=2), "not left out in silence by what was packed before"

    def refuse(*_: object) -> None:
        raise AssertionError("packed again")

    with monkeypatch.context() as closed:
        closed.setattr(packing, "write_pack", refuse)
        assert "; 47 images" in run(*arguments, "--skip-bad")
    damaged.write_bytes(whole)
    assert "; 48 images" in run(*arguments)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_bin_without_images_is_a_dash(run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    dataset = open_dataset("aflw2000", photographs)
    near = [name for name, sample in zip(dataset.names, dataset) if abs(sample.pose[1]) <= 30]
    (tmp_path / "near").mkdir()
    for name in near:
        for ending in (".jpg", ".mat"):
            os.link(photographs / f"{name}{ending}", tmp_path / "near" / f"{name}{ending}")
    arguments = (morphable_checkpoint, "--data", "aflw2000", "--root", "near", "--figures", "seen")
    out = run(*arguments)
    assert f"{len(near)} images: {len(near)} with |yaw| to 30°, 0 to 60°, 0 beyond" in out
    assert _line(out, "this checkpoint")[1:4] == ["–", "–", "–"]
    assert _line(out, "nme_30_60 ") == ["–", "–", "–"]
    assert "nan" not in out.lower()
    written = json.loads((tmp_path / "seen" / "evaluation.json").read_text())
    assert written["metrics"]["nme"] is None and written["metrics"]["nme_0_30"] > 0


def test_figures(run, morphable_checkpoint: Path, tmp_path: Path) -> None:
    out = run(morphable_checkpoint, "--figures", "seen/here")
    folder = tmp_path / "seen" / "here"
    assert str(folder) in out
    written = json.loads((folder / "evaluation.json").read_text())
    with (folder / "per_image.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == written["images"] == sum(written["images_per_yaw_bin"]) == 48
    nme = np.array([float(row["nme"]) for row in rows])
    assert nme.mean() == pytest.approx(written["metrics"]["nme_whole"], abs=1e-5)
    assert np.mean([float(row["error_yaw"]) for row in rows]) == pytest.approx(written["metrics"]["mae_yaw"], abs=1e-5)
    near = [value for value, row in zip(nme, rows) if abs(float(row["true_yaw"])) <= 30]
    assert np.mean(near) == pytest.approx(written["metrics"]["nme_0_30"], abs=1e-5)
    sheets = [cv2.imread(str(folder / f"{name}.png")) for name in ("worst", "median", "best")]
    assert len({sheet.shape for sheet in sheets}) == 1 and sheets[0].shape[1] == 8 * 192
    assert not np.array_equal(sheets[0], sheets[2])
    assert {"true_yaw", "error_pitch", "error_roll", "error_geodesic"} < set(rows[0]) and "yaw" not in rows[0]
    headings = [sheet[:22] for sheet in sheets]
    assert all((heading < 128).sum() > 200 for heading in headings), "a sheet says what it shows"
    assert not np.array_equal(headings[0], headings[2]) and (sheets[0][:4] > 200).all()
    curves = cv2.imread(str(folder / "ced.png"))
    assert curves.shape[0] > 400 and curves.std() > 10
    (tmp_path / "file").write_text("")
    assert "cannot be made" in run(morphable_checkpoint, "--figures", "file/seen", status=2)


def test_a_dense_system_is_scored_too(run, dense_checkpoint: Path) -> None:
    assert float(_line(run(dense_checkpoint), "this checkpoint")[3]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "aflw2000"], "belong together"),
        (["--root", "."], "belong together"),
        (["--data", "aflw2000", "--root", ".", "--pack", "x"], "give one of them"),
        (["--skip-bad"], "go with --data"),
        (["--data", "aflw200", "--root", "."], "did you mean 'aflw2000'"),
        (["--data", "aflw2000", "--root", "none"], "no folder none"),
        (["--pack", "none"], "is no pack of faces"),
    ],
)
def test_mistakes_are_one_line(
    run, morphable_checkpoint: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTLSEARCH_DATA", raising=False)
    error = run(morphable_checkpoint, *arguments, status=2)
    assert words in error and len(error.strip().splitlines()) == 1


def test_a_problem_of_another_kind_keeps_its_table(
    run, tmp_path: Path, at_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(ROOT / "examples" / "own_problem.yaml"), "--output", "run", "--threads", "1"]
    assert call("train", *arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)[0] == 0
    out = run("run/best.safetensors")
    assert "constant prediction" in out and "as published" not in out
    assert "are for faces" in run("run/best.safetensors", "--pack", "x", status=2)


def _evaluation(source: str, count: int, published: int | None, points: int = 68) -> Evaluation:
    metrics = dict.fromkeys(FaceScores.names, 9.876)
    empty = Prediction(torch.empty(0, 68, 3), torch.empty(0, 3))
    cost = Cost(1_000_000, 900_000, 5_000_000, {1: 5.0, 32: 10.0}, "CPU, 1 thread")
    bins = (count, 0, 0)
    rendered = source.startswith("rendered")
    return Evaluation(
        source, rendered, "test", count, published, points, bins, count, metrics, metrics, "the test split itself",
        cost, empty, FaceScores(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("evaluation", "together"),
    [
        (_evaluation("aflw2000", 2000, 2000), True),
        (_evaluation("aflw2000", 1999, 2000), False),
        (_evaluation("aflw2000", 2000, 2000, points=21), False),
        (_evaluation("aflw2000_reannotated", 2000, 2000), False),
        (_evaluation("aflw_3ddfa", 21_080, 21_080, points=21), True),
        (_evaluation("aflw", 20_000, None, points=21), False),
        (_evaluation("synthetic", 2000, None), False),
        (_evaluation("rendered faces in the layout of aflw2000", 2000, None), False),
    ],
    ids=lambda value: f"{value.source}-{value.count}-{value.points}" if isinstance(value, Evaluation) else "",
)
def test_figures_of_different_data_never_share_a_table(evaluation: Evaluation, together: bool) -> None:
    tables = [part for part in scoreboard(evaluation) if not isinstance(part, str)]
    assert len(tables) == (1 if together else 2)
    methods = [list(table.columns[0].cells) for table in tables]
    assert methods[0][:2] == ["this checkpoint", "constant prediction"]
    assert (len(methods[0]) > 2) == together
    if not together:
        assert "do not compare" in str(tables[1].title)
        assert "this checkpoint" not in methods[1]
    shown = {cell for table in tables for cell in table.columns[-1].cells}
    assert any(evaluation.source in cell for cell in shown)
    assert together or all(len(set(table.columns[-1].cells)) == 1 for table in tables)


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (_evaluation("aflw2000", 2000, 2000, points=21), "other landmarks than above"),
        (_evaluation("aflw2000", 1999, 2000), "other images than above"),
        (_evaluation("aflw2000", 1999, 2000, points=21), "other images and landmarks than above"),
        (_evaluation("synthetic", 2000, None), "other data than above"),
    ],
)
def test_a_table_says_what_keeps_it_apart(evaluation: Evaluation, words: str) -> None:
    tables = [part for part in scoreboard(evaluation) if not isinstance(part, str)]
    assert words in str(tables[1].title)


def test_2000_rendered_faces_in_the_layout_of_aflw2000_stay_apart(
    run, morphable_checkpoint: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the authors published, by name or above or below the folder: they never share the papers' table."""
    monkeypatch.setattr(AFLW2000, "published", 48)
    out = run(morphable_checkpoint, "--data", "aflw2000", "--root", photographs)
    assert "so the two tables do not compare" in out and "rendered faces" in out
    (photographs / ORIGIN_FILE).rename(photographs / "hidden")
    try:
        assert "do not compare" not in run(morphable_checkpoint, "--data", "aflw2000", "--root", photographs)
    finally:
        (photographs / "hidden").rename(photographs / ORIGIN_FILE)


def test_every_published_row_and_figure_of_the_data_set_is_shown() -> None:
    (table,) = (part for part in scoreboard(_evaluation("aflw2000", 2000, 2000)) if not isinstance(part, str))
    rows = list(zip(*(column.cells for column in table.columns)))
    assert len(rows) == 2 + len(published_for("aflw2000"))
    for shown, row in zip(rows[2:], published_for("aflw2000")):
        for name, text in row.printed.items():
            assert name in SIZES or text in shown
        assert shown[-2] == shown[-4] == "–", "images/s and active parameters are ours alone"
    assert rows[0][-5:] == ("1.00 M", "0.90 M", "5.00 M", "10", "aflw2000")


@pytest.mark.parametrize("source", ["aflw2000", "aflw_3ddfa"])
def test_a_row_is_a_line_of_140_characters(source: str) -> None:
    evaluation = _evaluation(source, 2000, 2000)
    (table,) = (part for part in scoreboard(evaluation) if not isinstance(part, str))
    console = Console(width=140)
    with console.capture() as shown:
        console.print(table)
    lines = shown.get().splitlines()
    assert len(lines) == 3 + table.row_count and not any("…" in line for line in lines)


REAL = os.environ.get("MTLSEARCH_DATA")


@pytest.mark.skipif(not REAL, reason="MTLSEARCH_DATA is not set")
def test_real_faces(run, morphable_checkpoint: Path) -> None:
    out = run(morphable_checkpoint, "--data", "aflw2000", "--root", "aflw2000-3d-sample", "--figures", "seen")
    assert "aflw2000 (8 of 2,000), test split, 68 points; 8 images: 3 with |yaw| to 30°, 3 to 60°, 2 beyond" in out
    figures = [float(word) for word in _line(out, "this checkpoint")[:9]]
    assert all(0 < figure < 180 for figure in figures)
