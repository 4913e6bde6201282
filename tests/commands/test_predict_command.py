"""`python -m mtlsearch.predict` as a user types it."""

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
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mtlsearch.errors import InputError
from mtlsearch.faces.checkpoints import load_system
from mtlsearch.faces.datasets import open_dataset
from mtlsearch.faces.datasets.packing import CropSettings, pack_dataset
from mtlsearch.faces.evaluation.splits import predict_split, score_split
from mtlsearch.faces.geometry import crop_from_box
from mtlsearch.faces.metrics import nme
from mtlsearch.faces.packs.batches import DeviceSplit
from mtlsearch.faces.pictures.drawing import draw_axes, draw_dense, draw_outlines
from mtlsearch.faces.prediction import annotating
from mtlsearch.faces.prediction.detecting import FaceDetector
from mtlsearch.faces.prediction.predicting import predict_crops
from tests.commands.test_commands import call


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def predict(*arguments: object, status: int = 0) -> str:
        words = [str(argument) for argument in arguments]
        code, out, error = call("predict", *words, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
        assert code == status, out + error
        return error if status == 2 else out

    return predict


def _faces(folder: Path) -> list[dict]:
    return json.loads((folder / "predictions.json").read_text())["faces"]


def test_a_folder_with_bad_files_among_good_ones(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = sorted(photographs.glob("*.jpg"))[:2]
    for name in names:
        shutil.copy(name, folder)
    (folder / "cut.jpg").write_bytes(names[0].read_bytes()[:700])
    (folder / "text.png").write_text("no picture")
    (folder / "notes.txt").write_text("left alone")
    out = run(folder, "absent.jpg", "--checkpoint", morphable_checkpoint, "--output", "out", status=1)
    assert out.count(", face 1: pitch ") == 2
    assert "3 of 5 inputs could not be used" in out
    for bad in ("cut.jpg", "text.png", "absent.jpg"):
        assert sum(bad in line for line in out.splitlines()) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(name.name for name in names), "predictions.csv", "predictions.json",
    }  # fmt: skip
    before = cv2.imread(str(names[0]))
    drawn = cv2.imread(str(tmp_path / "out" / names[0].name))
    assert drawn.shape == before.shape
    assert (np.abs(drawn.astype(int) - before) > 60).any(-1).sum() > 100, "something is drawn"
    assert (cv2.imread(str(folder / names[0].name)) == before).all(), "inputs stay as they are"
    faces = _faces(tmp_path / "out")
    assert [Path(face["file"]).name for face in faces] == [name.name for name in names]
    assert np.array(faces[0]["landmarks"]).shape == (68, 3)
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(rows[1][f"y{k}"]) for k in range(68)] == [point[1] for point in faces[1]["landmarks"]]
    assert [float(rows[0][name]) for name in ("pitch", "yaw", "roll")] == list(faces[0]["angles"].values())


def test_a_box_says_where_the_face_is(run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    photograph = sorted(photographs.glob("*.jpg"))[0]
    run(photograph, "--box", "5,4,30,33", "--checkpoint", morphable_checkpoint, "--output", "out")
    (face,) = _faces(tmp_path / "out")
    np.testing.assert_allclose(face["crop"], crop_from_box(np.array([5.0, 4, 30, 33])), atol=1e-3)
    points = np.array(face["landmarks"])[:, :2]
    inside = (points > np.array(face["crop"][:2]) - 5) & (points < np.array(face["crop"][2:]) + 5)
    assert inside.all(), "landmarks come back in the photograph's pixels"
    out = run(photograph, "--box", "900,4,930,33", "--checkpoint", morphable_checkpoint, "--output", "out", status=1)
    assert "lies outside" in out
    arguments = ("--checkpoint", morphable_checkpoint, "--output", "out")
    assert "reaches far beyond" in run(photograph, "--box=-1e9,-1e9,1e9,1e9", *arguments, status=1)


def test_a_photograph_taken_sideways_is_read_upright(run, morphable_checkpoint: Path, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it clockwise
    image.save(tmp_path / "sideways.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    run("sideways.png", "upright.png", "--checkpoint", morphable_checkpoint, "--output", "out")
    sideways, upright = _faces(tmp_path / "out")
    assert sideways["landmarks"] == upright["landmarks"]
    assert cv2.imread(str(tmp_path / "out" / "sideways.png")).shape == (60, 40, 3)


def test_a_video_gives_a_video(run, morphable_checkpoint: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    for shade in (40, 90, 140, 190):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = run("clip.avi", "broken.mp4", "--checkpoint", morphable_checkpoint, "--output", "out", status=1)
    assert "clip.avi, frame 3, face 1: pitch" in out
    assert "broken.mp4 is no video" in out
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (12, 64)
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 4
    assert not (tmp_path / "out" / "broken.mp4").exists()
    assert [face["frame"] for face in _faces(tmp_path / "out")] == [0, 1, 2, 3]


def test_a_video_that_fails_leaves_none(
    run, morphable_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half of a video nor what an earlier prediction drew is lost, and the numbers of its first frames stay."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    for shade in (40, 90, 140):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    locate, seen = annotating.everywhere, []

    def failing(image: np.ndarray) -> list[np.ndarray]:
        seen.append(image)
        if len(seen) == 3:
            raise InputError("the third frame fails")
        return locate(image)

    monkeypatch.setattr(annotating, "everywhere", failing)
    out = run("clip.avi", "--checkpoint", morphable_checkpoint, "--output", "out", status=1)
    assert "clip.avi: the third frame fails" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "predictions.json"}
    assert [face["frame"] for face in _faces(tmp_path / "out")] == [0, 1]


def test_a_network_that_gives_no_numbers_is_said_for_each_image(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    with safe_open(morphable_checkpoint, "pt") as stored:
        tensors, facts = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    spoilt = {name: torch.full_like(t, torch.nan) if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(spoilt, tmp_path / "nan.safetensors", facts)
    names = sorted(photographs.glob("*.jpg"))[:2]
    out = run(*names, "--checkpoint", "nan.safetensors", "--output", "out", status=1)
    assert out.count("the network's prediction is not a number") == 2 and "2 of 2 inputs" in out
    assert _faces(tmp_path / "out") == []


def test_numbers_are_kept_whatever_ends_the_work(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(photographs.glob("*.jpg"))[:2]
    save = annotating.save_image

    def failing(image: np.ndarray, path: Path) -> Path:
        if path.name == second.name:
            raise RuntimeError("a fault of ours")
        return save(image, path)

    monkeypatch.setattr(annotating, "save_image", failing)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run(first, second, "--checkpoint", morphable_checkpoint, "--output", "out")
    assert [Path(face["file"]).name for face in _faces(tmp_path / "out")] == [first.name, second.name]
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2


def test_a_prediction_far_off_is_drawn_as_well_as_it_can_be() -> None:
    landmarks = np.random.default_rng(0).normal(size=(68, 3)) * 1e12
    image = np.zeros((40, 40, 3), np.uint8)
    draw_outlines(image, landmarks)
    draw_axes(image, landmarks, np.zeros(3))
    draw_dense(image, landmarks)


def test_what_is_in_the_folder_is_never_written_over_but_by_its_own_pictures(
    run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    photograph, other = sorted(photographs.glob("*.jpg"))[:2]
    output = tmp_path / "out"
    output.mkdir()
    (output / photograph.name).write_bytes(b"a holiday")
    arguments = ("--checkpoint", morphable_checkpoint, "--output", "out")
    numbered = f"{photograph.stem}-2.jpg"
    for inputs in ([photograph], [photograph, other], [other], [photograph]):
        run(*inputs, *arguments)
        assert (output / photograph.name).read_bytes() == b"a holiday"
        assert json.loads((output / "predictions.json").read_text())["pictures"][0] == numbered
    assert {path.name for path in output.glob("*.jpg")} == {photograph.name, numbered, other.name}
    for name, content in (("predictions.json", "{}"), ("predictions.csv", "mine")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(content)
        assert "not from an earlier prediction" in run(photograph, *arguments[:2], "--output", folder, status=2)
        assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == content


def test_dense_points_are_written_and_drawn(
    run, dense_checkpoint: Path, morphable_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    photograph = sorted(photographs.glob("*.jpg"))[0]
    run(photograph, "--checkpoint", dense_checkpoint, "--output", "plain")
    assert "dense" not in _faces(tmp_path / "plain")[0]
    assert "no dense points" in run(photograph, "--checkpoint", morphable_checkpoint, "--output", "none", "--dense")
    run(photograph, "--checkpoint", dense_checkpoint, "--output", "dense", "--dense")
    assert np.array(_faces(tmp_path / "dense")[0]["dense"]).shape == (520, 3)
    plain, dense = (cv2.imread(str(tmp_path / name / photograph.name)) for name in ("plain", "dense"))
    assert (np.abs(dense.astype(int) - plain) > 60).any()


def test_inputs_are_never_written_over(run, morphable_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    first = tmp_path / "faces" / "a.jpg"
    first.parent.mkdir()
    shutil.copy(sorted(photographs.glob("*.jpg"))[0], first)
    content = first.read_bytes()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").symlink_to(first)
    for output in ("faces", "elsewhere"):
        error = run("faces", "--checkpoint", morphable_checkpoint, "--output", output, status=2)
        assert "inputs are never written over" in error
    os.link(first, tmp_path / "b.jpg")
    (tmp_path / "hard").mkdir()
    os.link(first, tmp_path / "hard" / "b.jpg")
    assert "never" in run("b.jpg", "--checkpoint", morphable_checkpoint, "--output", "hard", status=2)
    assert first.read_bytes() == content
    (tmp_path / "other").mkdir()
    shutil.copy(first, tmp_path / "other" / "a.jpg")
    run("faces", "other", "--checkpoint", morphable_checkpoint, "--output", "out")
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {"a.jpg", "a-2.jpg"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.jpg", "--checkpoint", "none.safetensors"], "no checkpoint none.safetensors"),
        (["a.jpg", "--checkpoint", "x", "--box", "1,2,3"], "left,top,right,bottom"),
        (["a.jpg", "--checkpoint", "x", "--box", "1,2,1,9"], "left,top,right,bottom"),
        (["a.jpg", "--checkpoint", "x", "--box", "1,2,nan,9"], "left,top,right,bottom"),
        (["a.jpg", "--checkpoint", "x", "--detector", "none.onnx"], "no file none.onnx"),
        (["a.jpg", "--checkpoint", "x", "--detector", "text"], "no network for FaceDetectorYN"),
        (["a.jpg", "--checkpoint", "x", "--detector", "text", "--box", "1,2,3,4"], "one of them"),
        (["empty", "--checkpoint", "x"], "holds no image"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    (tmp_path / "empty").mkdir()
    error = run(*arguments, "--output", "out", status=2)
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def _detector(path: Path) -> Path:
    """A network of FaceDetectorYN's form that sees a face, 48 pixels wide and 32 high, in every white block of 32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    # per stride: score, objectness, box (centre from the cell's corner, log of the size, in strides), five points
    values = {"cls": [1 / 255], "obj": [1 / 255], "bbox": [0, 0, 0, 0], "kps": [0] * 10}
    offsets = {"cls": [0], "obj": [0], "bbox": [0.5, 0.5, np.log(1.5), 0], "kps": [0] * 10}
    constants = {"rows": np.array([1, -1, 1])}
    nodes = [helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1)]
    for stride in (8, 16, 32):
        shape = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["grey"], [f"pooled_{stride}"], **shape))
        nodes.append(helper.make_node("Reshape", [f"pooled_{stride}", "rows"], [f"flat_{stride}"]))
        for name in values:
            key = f"{name}_{stride}"
            factor = np.array(values[name], np.float32)[None, None] * (stride == 32)
            constants |= {f"{key}_factor": factor, f"{key}_offset": np.array(offsets[name], np.float32)[None, None]}
            nodes.append(helper.make_node("Mul", [f"flat_{stride}", f"{key}_factor"], [f"{key}_scaled"]))
            nodes.append(helper.make_node("Add", [f"{key}_scaled", f"{key}_offset"], [key]))
    order = [f"{name}_{stride}" for name in values for stride in (8, 16, 32)]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [1, f"cells_{name}", len(values[name.split("_")[0]])]
            )
            for name in order
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_detector_finds_every_face(run, morphable_checkpoint: Path, tmp_path: Path) -> None:
    network = _detector(tmp_path / "detector.onnx")
    image = np.zeros((96, 160, 3), np.uint8)
    image[32:64, 64:96] = 255
    assert [box.tolist() for box in FaceDetector(network).detect(image)] == [[56, 32, 104, 64]]
    image[64:96, :32] = 255
    Image.fromarray(image).save(tmp_path / "two.png")
    Image.fromarray(image * 0).save(tmp_path / "none.png")
    out = run("two.png", "none.png", "--checkpoint", morphable_checkpoint, "--detector", network, "--output", "out")
    assert "none.png: no face found; written as it is" in out
    assert (cv2.imread(str(tmp_path / "out" / "none.png")) == 0).all()
    faces = _faces(tmp_path / "out")
    expected = [crop_from_box(np.array(box)) for box in ([56.0, 32, 104, 64], [-8.0, 64, 40, 96])]
    crops = sorted((face["crop"] for face in faces), reverse=True)
    np.testing.assert_allclose(crops, expected, atol=1e-3)
    assert [face["face"] for face in faces] == [1, 2]


def test_a_large_photograph_is_searched_at_half_its_size(tmp_path: Path) -> None:
    image = np.zeros((1280, 2560, 3), np.uint8)
    image[640:704, 128:192] = 255
    (box,) = FaceDetector(_detector(tmp_path / "detector.onnx")).detect(image)
    np.testing.assert_allclose(box, [112, 640, 208, 704], atol=1e-3)


def test_predictions_on_photographs_are_those_that_evaluation_scores(
    morphable_checkpoint: Path,
    photographs: Path,
    tmp_path: Path,
) -> None:
    loaded = load_system(morphable_checkpoint)
    dataset = open_dataset("aflw2000", photographs)
    pack = pack_dataset(dataset, tmp_path / "pack", CropSettings(loaded.image_size, 1.0))
    with torch.inference_mode():
        images = DeviceSplit(pack.split("test"), torch.device("cpu"), ())
        scores = score_split(predict_split(loaded.model, images, pack, 32), pack, "test", 32).per_image()
    for i in range(0, len(dataset), 7):
        sample = dataset[i]
        (face,) = predict_crops(loaded.model, loaded.image_size, sample.image, [sample.crop])
        own = nme(face.landmarks[None], sample.landmarks[None])[0]
        assert own == pytest.approx(scores["nme"][i].item(), abs=1e-3)


@pytest.mark.skipif(not os.environ.get("MTLSEARCH_DATA"), reason="MTLSEARCH_DATA is not set")
def test_real_photographs(run, morphable_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(os.environ["MTLSEARCH_DATA"]) / "aflw2000-3d-sample"
    out = run(folder, "--checkpoint", morphable_checkpoint, "--output", "out")
    photographs = sorted(folder.glob("*.jpg"))
    faces = _faces(tmp_path / "out")
    assert len(faces) == len(photographs) == out.count(", face 1: pitch ") == 8
    for face, photograph in zip(faces, photographs):
        before, drawn = (cv2.imread(str(path)) for path in (photograph, tmp_path / "out" / photograph.name))
        assert drawn.shape == before.shape and (np.abs(drawn.astype(int) - before) > 60).any(-1).sum() > 100
        points = np.array(face["landmarks"])
        assert points.shape == (68, 3) and (np.abs(points[:, :2] - 225) < 450).all()
