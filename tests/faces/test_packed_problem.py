"""Run configs on packed data: real layouts in, the protocol of the data set's name out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.datasets import open_basis, open_dataset
from mtlsearch.faces.datasets.packing import CropSettings, SplitSettings, pack_dataset
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.packs.batches import DeviceSplit, fits
from mtlsearch.faces.packs.pack import Pack, ensure_pack, open_pack
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.faces.targets import Prediction
from mtlsearch.training import load_run_config, train
from tests.faces.datasets import builders


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs made of our own faces through the real layouts: train and val of 300W-LP, tests of the others."""
    base = tmp_path_factory.mktemp("packed")
    faces = ensure_pack(
        SyntheticRecipe(train=0, val=0, test=90, image_size=48, margin=1.5, seed=3, **builders.FAR),
        folder=base / "faces",
        workers=1,
    )
    builders.exported(faces, base / "lp", "300w_lp")
    builders.exported(faces, base / "aflw2000-files", "aflw2000")
    basis = open_basis(base / "lp" / "basis")
    size = CropSettings(48, 1.25)
    pack_dataset(open_dataset("300w_lp_3d", base / "lp", basis), base / "train", size, SplitSettings(0.4), workers=1)
    pack_dataset(open_dataset("300w_lp", base / "lp"), base / "flat", size, SplitSettings(0.4), workers=1)
    pack_dataset(open_dataset("aflw2000", base / "aflw2000-files"), base / "aflw2000", CropSettings(64), workers=1)
    builders.aflw_3ddfa(faces, base / "aflw-files")
    pack_dataset(open_dataset("aflw_3ddfa", base / "aflw-files"), base / "aflw", CropSettings(72), workers=1)
    return base


def problem(base: Path, **data: object) -> FaceProblem:
    folders = {"train": base / "train", "test": base / "aflw2000", **data}
    text = ", ".join(f"{key}: {value}" for key, value in folders.items())
    config = load_run_config("quick", [f"data={{name: packed, {text}}}", "training.epochs=1", "training.batch_size=16"])
    made = FaceProblem(config)  # type: ignore[arg-type]
    made.prepare()
    return made


class Oracle(torch.nn.Module):
    """Predicts the truth of a split, in the pixels of the network's input, each landmark off by a pixel of the crop."""

    def __init__(self, problem: FaceProblem, split: str, off: float) -> None:
        super().__init__()
        pack = problem._packs[split]
        labels = pack.split(split).labels
        points = labels["landmarks"].astype(float)
        points[..., :2] -= (pack.stored_size - pack.image_size) / 2
        points = (points + 0.5) * (problem.image_size / pack.image_size) - 0.5
        points[..., 0] += off
        self.points, self.angles = torch.from_numpy(points), torch.from_numpy(labels["angles"].copy())
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode(self, images: torch.Tensor) -> Prediction:
        rows = slice(self.seen, self.seen + len(images))
        self.seen += len(images)
        return Prediction(self.points[rows], self.angles[rows])


def test_errors_are_measured_in_the_photograph(base: Path) -> None:
    """A pixel of the network's input is side/size pixels of the photograph, at any image size."""
    photographs = open_dataset("aflw2000", base / "aflw2000-files")
    sides = np.array([sample.crop[2] - sample.crop[0] for sample in photographs])
    boxes = np.stack([sample.box for sample in photographs])
    sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    for image_size in (48, 96):
        made = problem(base, image_size=image_size)
        assert made.image_size == image_size
        exact = made.evaluate(Oracle(made, "test", 0.0), "test")
        assert exact["nme_whole"] < 1e-3 and exact["mae"] < 1e-3 and exact["nme_3d"] < 1e-3
        off = made.evaluate(Oracle(made, "test", 1.0), "test")
        assert off["nme_whole"] == pytest.approx((100 * sides / image_size / sizes).mean(), rel=1e-4)


def test_21_points_are_compared_where_they_are_visible(base: Path) -> None:
    made = problem(base, test=base / "aflw")
    labels = open_pack(base / "aflw").split("test").labels
    assert labels["landmarks"].shape[1] == 21 and not labels["visible"].all()
    truth = open_pack(base / "faces").split("test")
    points = torch.from_numpy(truth.labels["landmarks"].astype(float))
    hidden = torch.from_numpy(~labels["visible"])
    spoilt = points.clone()  # a prediction that is wrong only where nothing was annotated
    for k, group in enumerate([(2,), (14,)]):
        spoilt[hidden[:, (12, 16)[k]], group[0]] += 40
    oracle = Oracle(made, "test", 0.0)
    unit = made.image_size / 72
    oracle.points, oracle.angles = (spoilt + 0.5) * unit - 0.5, torch.from_numpy(truth.labels["angles"].copy())
    scores = made.evaluate(oracle, "test")
    assert scores["nme_whole"] < 1e-2
    assert np.isnan(scores["mae"]) and np.isnan(scores["nme_3d"]) and scores["mae_yaw"] < 1e-3
    assert "90 of them left out of mae and mae_geodesic for an angle unknown" in made.describe_data()
    oracle = Oracle(made, "test", 0.0)
    oracle.points = (points + torch.tensor([3.0, 4.0, 0]) + 0.5) * unit - 0.5
    box = np.concatenate([truth.labels["landmarks"][..., :2].min(1), truth.labels["landmarks"][..., :2].max(1)], 1)
    sizes = np.sqrt((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    assert made.evaluate(oracle, "test")["nme_whole"] == pytest.approx((500 / sizes).mean(), rel=1e-3)
    assert to_21_points(points[:1]).shape == (1, 21, 3)


def test_poses_beyond_99_degrees_are_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    import scipy.io

    root = tmp_path / "aflw2000"
    root.mkdir()
    for path in (base / "aflw2000-files").glob("image*"):
        (root / path.name).write_bytes(path.read_bytes())
    for name in ("image00003", "image00010"):
        variables = {k: v for k, v in scipy.io.loadmat(root / f"{name}.mat").items() if not k.startswith("__")}
        variables["Pose_Para"][0, 0] += np.pi / 2 + 1
        scipy.io.savemat(root / f"{name}.mat", variables)
    pack_dataset(open_dataset("aflw2000", root), tmp_path / "pack", CropSettings(48), workers=1)
    made = problem(base, test=tmp_path / "pack")
    assert (
        "test aflw2000 90 of 2,000, 2 of them left out of mae and mae_geodesic for an angle unknown or beyond ±99°"
        in (made.describe_data())
    )
    oracle = Oracle(made, "test", 0.0)
    oracle.angles[[2, 9]] = 0
    assert made.evaluate(oracle, "test")["mae"] < 1e-3


def test_a_packed_set_trains(base: Path) -> None:
    made = problem(base)
    assert made.size("train") + made.size("val") == 90
    result = train(made, made.config)
    assert np.isfinite(result.best["val/nme"]) and np.isfinite(result.best["val/mae"])
    rows = torch.arange(4)
    images, targets = made.batch(rows, torch.Generator().manual_seed(0))
    assert images.shape == (4, 3, 48, 48) and targets.parameters.shape == (4, 62)


def test_a_synthetic_pack_serves_by_path(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    recipe = SyntheticRecipe(train=40, val=40, test=40, image_size=32)
    ensure_pack(recipe, folder=folder, workers=1)
    made = problem(base, train=folder, test=folder)
    text = "{name: synthetic, image_size: 32, train: 40, val: 40, test: 40}"
    same = FaceProblem(load_run_config("quick", [f"data={text}"]))  # type: ignore[arg-type]
    same.prepare()
    assert made.trivial_metrics("test") == same.trivial_metrics("test")


def test_folders_become_absolute(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    config = load_run_config("quick", ["data={name: packed, train: train}"])
    assert config.data.train == str(base / "train")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"train": "flat"}, r"300w_lp\) cannot train this morphable system.*basis"),
        ({"train": "aflw"}, "has no split 'train'"),
        ({"test": "none"}, "is no pack of faces"),
        ({"val": "aflw2000"}, "has no split 'val'"),
    ],
)
def test_packs_that_do_not_serve_are_refused(base: Path, data: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        problem(base, **{key: base / name for key, name in data.items()})


def test_one_training_sample_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    ensure_pack(SyntheticRecipe(train=1, val=40, test=40, image_size=32), folder=folder, workers=1)
    with pytest.raises(InputError, match="one training sample"):
        problem(base, train=folder, test=folder)


def test_a_yaw_on_the_edge_is_in_the_lower_bin(base: Path, tmp_path: Path) -> None:
    """[0, 30], (30, 60], above: a split whose middle bin is all at 60 has one, and whose last is at 60 has none."""
    made = problem(base)
    angles = made._packs["test"].split("test").labels["angles"]
    angles[:, 1] = [[0.0, 60.0, 90.0][i % 3] for i in range(len(angles))]
    made._check()
    angles[:, 1] = [[30.0, 45.0, 60.0][i % 3] for i in range(len(angles))]
    with pytest.raises(InputError, match=r"\[30, 60, 0\] faces"):
        made._check()


@pytest.mark.parametrize(
    "change", [{"mean": None}, {"shape": np.zeros((68, 3, 9))}, {"mean": np.full((68, 3), np.nan)}]
)
def test_a_damaged_basis_is_refused(base: Path, tmp_path: Path, change: dict[str, np.ndarray | None]) -> None:
    folder = Path(shutil.copytree(base / "train", tmp_path / "pack"))
    with np.load(folder / "basis.npz") as stored:
        arrays = {**stored, **change}
    np.savez(folder / "basis.npz", **{name: array for name, array in arrays.items() if array is not None})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["basis.npz"]["bytes"] = (folder / "basis.npz").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"basis\.npz: .* must be finite numbers of shape"):
        _ = open_pack(folder).basis


def test_configs_that_do_not_say_enough_are_refused() -> None:
    for text, words in (
        ("{name: packed}", r"data\.train"),
        ("{name: pack, train: x}", "did you mean 'packed'"),
        ("{name: packed, trian: x}", "did you mean 'train'"),
    ):
        with pytest.raises(InputError, match=words):
            load_run_config("quick", [f"data={text}"])


def test_rows_on_the_device_are_rows_of_the_pack(base: Path) -> None:
    pack: Pack = open_pack(base / "train")
    split = DeviceSplit(pack.split("train"), torch.device("cpu"), ("landmarks", "angles"))
    rows = torch.tensor([5, 0, 5])
    images, labels = split.batch(rows)
    np.testing.assert_array_equal(images.numpy(), pack.split("train").images[[5, 0, 5]])
    np.testing.assert_array_equal(labels["angles"].numpy(), pack.split("train").labels["angles"][[5, 0, 5]])
    assert set(labels) == {"landmarks", "angles"} and not split.held and len(split) == len(pack.split("train"))
    with pytest.raises(InputError, match="no label gaze"):
        DeviceSplit(pack.split("train"), torch.device("cpu"), ("gaze",))


def test_an_array_is_held_where_it_leaves_room_for_the_network() -> None:
    assert fits(4 << 30, 80 << 30) and not fits(60 << 30, 80 << 30)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_holds_the_array(base: Path) -> None:
    pack = open_pack(base / "train")
    split = DeviceSplit(pack.split("train"), torch.device("cuda"), ("landmarks",))
    images, labels = split.batch(torch.tensor([3, 1]))
    assert split.held and images.is_cuda and labels["landmarks"].is_cuda
    np.testing.assert_array_equal(images.cpu().numpy(), pack.split("train").images[[3, 1]])
