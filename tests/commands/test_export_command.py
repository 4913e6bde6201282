"""`python -m mtlsearch.export`: the file that it writes, used as its metadata says; and the file that it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mtlsearch.faces import onnx_export
from mtlsearch.faces.checkpoints import load_system
from mtlsearch.faces.datasets import open_dataset
from mtlsearch.faces.datasets.crops import crop_affine, warp
from mtlsearch.faces.onnx_export import OPSET, export_onnx, read_metadata
from mtlsearch.faces.prediction.predicting import predict_crops
from tests.commands.test_commands import call


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def export(*arguments: object, status: int = 0) -> str:
        words = [str(argument) for argument in arguments]
        code, out, error = call("export", *words, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
        assert code == status, out + error
        return out if status == 0 else error

    return export


@pytest.mark.parametrize("kind", ["morphable", "dense", "cascade"])
def test_the_file_alone_predicts_what_pytorch_does(
    run, kind: str, photographs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    out = run(checkpoint, "--output", "face.onnx", "--threads", "1")
    for batch in (1, 3, 8):
        assert f"rendered faces, batch {batch}: " in out and f"noise, batch {batch}: " in out
    assert f"opset {OPSET}" in out and "ONNX Runtime" in out and "1 thread each" in out
    assert [path.name for path in tmp_path.iterdir()] == ["face.onnx"]
    content = (tmp_path / "face.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content, "no folders of this machine"
    assert b"mtlsearch/faces" not in content

    # from here on by the metadata alone, as a user without mtlsearch would
    facts = read_metadata(tmp_path / "face.onnx")
    assert (facts["opset"], facts["data"], facts["system"]) == (OPSET, "synthetic", kind)
    assert (facts["epoch"], facts["metrics"]) == (3, {"val/nme": 20.0})
    assert facts["outputs"]["angles"]["order"] == ["pitch", "yaw", "roll"]
    shape = (21, 2) if kind == "cascade" else (68, 3)
    assert facts["outputs"]["landmarks"]["scheme"].startswith(f"{shape[0]} points")
    session = onnxruntime.InferenceSession(tmp_path / "face.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["landmarks", "angles", "dense"][
        : 3 if kind == "dense" else 2
    ]
    assert json.loads(session.get_modelmeta().custom_metadata_map["mtlsearch"]) == facts
    given = facts["input"]
    sample = open_dataset("aflw2000", photographs)[5]
    affine = crop_affine(sample.crop, given["size"], given["size"])
    pixels = warp(sample.image, affine, given["size"]).astype(np.float32)
    image = ((pixels / 255 - given["mean"]) / given["std"]).astype(np.float32).transpose(2, 0, 1)
    for batch in (1, 5):
        got = dict(
            zip(
                [output.name for output in session.get_outputs()],
                session.run(None, {"images": np.repeat(image[None], batch, 0)}),
            )
        )
        loaded = load_system(checkpoint)
        (expected,) = predict_crops(loaded.model, loaded.image_size, sample.image, [sample.crop])
        assert got["landmarks"].shape == (batch, *shape)
        scale = affine[0, 0]
        for points in got["landmarks"]:
            np.testing.assert_allclose(points[:, :2], expected.landmarks[:, :2] * scale + affine[:, 2], atol=0.01)
        np.testing.assert_allclose(got["angles"], np.repeat(expected.angles[None], batch, 0), atol=0.01)
        if kind == "dense":
            assert expected.dense is not None
            np.testing.assert_allclose(got["dense"][0][:, 2], expected.dense[:, 2] * scale, atol=0.01)


def test_a_file_that_differs_is_not_written(
    run, morphable_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "face.onnx").write_bytes(b"an earlier one")
    opened = onnx_export._open

    class _Off:
        """ONNX Runtime, a hundredth of a radian off."""

        def __init__(self, *arguments: object) -> None:
            self.session = opened(*arguments)  # type: ignore[arg-type]

        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            landmarks, angles = self.session.run(names, feed)
            return [landmarks, angles + 0.6]

    monkeypatch.setattr(onnx_export, "_open", _Off)
    error = run(morphable_checkpoint, "--output", "face.onnx", status=2)
    assert "was not written" in error and "rendered faces, 1 at a time" in error
    assert (tmp_path / "face.onnx").read_bytes() == b"an earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["face.onnx"]


def test_a_difference_that_is_no_number_fails(morphable_checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_system(morphable_checkpoint)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="was not written"):
        export_onnx(loaded.model, loaded.image_size, tmp_path / "face.onnx", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.safetensors"], "no checkpoint none.safetensors"),
        (["text"], "not a readable safetensors file"),
        (["text", "--output", "text"], "is the checkpoint itself"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    error = run(*arguments, status=2)
    assert words in error and len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_missing_folder_or_package_is_named(
    run, morphable_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "no folder nowhere" in run(morphable_checkpoint, "--output", "nowhere/face.onnx", status=2)
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else object())
    error = run(morphable_checkpoint, "--output", "face.onnx", status=2)
    assert "onnxscript" in error and "pip install 'mtlsearch[search,export]'" in error
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="no ONNX file that mtlsearch wrote"):
        read_metadata(tmp_path / "text")
