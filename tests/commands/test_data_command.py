"""`python -m mtlsearch.data` as a user types it: render, export, pack, inspect, preview, an interruption, a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from mtlsearch.data import VERBS
from mtlsearch.faces.packs import exporting
from mtlsearch.faces.packs import writer as pack_writer
from mtlsearch.faces.packs.pack import open_pack
from tests.commands.test_commands import ROOT, call, command

RENDER = ["--train", "40", "--val", "8", "--test", "8", "--image-size", "32", "--workers", "1"]


def data(
    *arguments: str, cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int = 0
) -> str:
    code, out, error = call("data", *arguments, cwd=cwd, monkeypatch=monkeypatch, capsys=capsys)
    assert code == status, error
    return out if status == 0 else error


def test_every_verb_has_its_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in VERBS:
        assert "Usage:" in data(verb.__name__, "--help", cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert list(tmp_path.iterdir()) == []


def test_there_and_back_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        return data(*arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys, status=status)

    assert "{'train': 40, 'val': 8, 'test': 8}" in run("render", "faces", *RENDER)
    assert "pack 300w_lp exported PACK --basis" in run("export", "faces", "exported", "--layout", "300w_lp")
    assert "not empty" in run("export", "faces", "exported", "--layout", "300w_lp", status=2)
    packing = ["pack", "300w_lp_3d", "exported", "again", "--basis", "exported/basis", "--image-size", "32"]
    (tmp_path / "exported" / "Synthetic" / "Synthetic_000002_1_0.jpg").write_bytes(b"")
    refused = run(*packing, status=2)
    assert "1 of 8 samples cannot be used" in refused and "--skip-bad" in refused
    assert "1 samples were left out" in run(*packing, "--skip-bad")
    assert open_pack(tmp_path / "again", verify=True).source == "rendered faces in the layout of 300w_lp_3d"
    shown = run("inspect", "again", "--verify")
    assert (
        "rendered faces in the layout of 300w_lp_3d" in shown
        and "Synthetic_000002" in shown
        and "has its checksum" in shown
    )
    assert "generator version" in run("inspect", "faces")
    run("preview", "faces", "sheets/plain.png", "--rows", "2", "--columns", "3", "--scale", "2")
    run("preview", "faces", "sheets/seen.png", "--rows", "2", "--columns", "3", "--augmented")
    sheet = cv2.imread(str(tmp_path / "sheets" / "plain.png"))
    assert sheet.shape == (160, 240, 3)
    assert cv2.imread(str(tmp_path / "sheets" / "seen.png")).shape == (64, 96, 3)
    green = (sheet[..., 1] > 180) & (sheet[..., 0] < 120) & (sheet[..., 2] < 120)
    assert green.sum() > 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pack", "aflw200", ".", "out"], "did you mean 'aflw2000'"),
        (["pack", "aflw2000", "none", "out"], "MTLSEARCH_DATA"),
        (["pack", "300w_lp_3d", ".", "out"], "68-point basis"),
        (["inspect", "."], "is no pack of faces"),
        (["preview", ".", "a.png"], "is no pack of faces"),
        (["render", "out", "--margin", "9"], "margin"),
        (["render", "file/out", *RENDER], "file"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.delenv("MTLSEARCH_DATA", raising=False)
    error = data(*arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys, status=2)
    if "MTLSEARCH_DATA" not in words:
        assert words in error
    assert error.startswith("error: ") and len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interruption_says_that_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def run(*arguments: str, status: int = 130) -> str:
        return data(*arguments, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys, status=status)

    monkeypatch.setattr(pack_writer, "_appear", interrupt)
    assert "the same command goes on" in run("render", "faces", *RENDER)
    monkeypatch.undo()
    assert "{'train': 40" in run("render", "faces", *RENDER, status=0)
    monkeypatch.setattr(exporting, "_write_face", interrupt)
    assert "the same command goes on" in run("export", "faces", "out")


def test_a_killed_render_goes_on(tmp_path: Path) -> None:
    arguments = ["render", "faces", "--train", "1200", "--val", "8", "--test", "8", "--image-size", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtlsearch.data", *arguments, "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    journal = tmp_path / "faces.partial" / "train.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode != 0 and not (tmp_path / "faces").exists()
    done = journal.read_text().count("\n")
    finished = command("data", *arguments, "--workers", "2", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert done > 3 and not (tmp_path / "faces.partial").exists()
    assert open_pack(tmp_path / "faces", verify=True).counts == {"train": 1200, "val": 8, "test": 8}
