"""Basak 2023: dense labels, the hybrid loss, points and pose decoded, packs of position maps, learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.augmentation import Augmentation
from mtlsearch.faces.datasets import open_basis, open_dataset
from mtlsearch.faces.datasets.packing import CropSettings, SplitSettings, pack_dataset
from mtlsearch.faces.geometry import mirror_landmarks
from mtlsearch.faces.losses import MSE, Wing, WingMSE
from mtlsearch.faces.metrics import level_depth
from mtlsearch.faces.morphable.dense_labels import dense_of
from mtlsearch.faces.morphable.dense_points import dense_points
from mtlsearch.faces.packs.pack import ensure_pack, open_pack
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.faces.systems import Dense
from mtlsearch.faces.targets import FaceStatistics
from mtlsearch.training import load_run_config, train
from mtlsearch.training.costs import multiply_accumulates, parameter_count
from tests.faces.datasets import builders

SMALL = [
    "data={name: synthetic, image_size: 32, train: 96, val: 48, test: 48}",
    "model.backbone=test_resnet",
    "optimizer={name: adamw, lr: 0.005}",
    "schedule={name: onecycle}",
    "training.batch_size=24",
]


def made(*overrides: str) -> FaceProblem:
    problem = FaceProblem(load_run_config("basak2023", [*SMALL, *overrides]))  # type: ignore[arg-type]
    problem.prepare()
    return problem


@pytest.fixture(scope="module")
def problem() -> FaceProblem:
    return made()


def test_the_68_landmarks_are_the_first_dense_points(problem: FaceProblem) -> None:
    targets = problem._targets_of("val")
    assert targets.dense is not None and targets.dense.shape == (48, 520, 3)
    torch.testing.assert_close(targets.dense[:, :68], targets.landmarks, atol=1e-4, rtol=0)


def test_a_flip_mirrors_the_dense_points(problem: FaceProblem) -> None:
    """Derived from mirrored parameters, they are what the points' own permutation gives."""
    rows, flipped = torch.arange(16), Augmentation.off().model_copy(update={"flip": 1.0})
    _, labels = problem._load(rows, flipped)
    _, plain = problem._load(rows, Augmentation.off())
    order = tuple(int(i) for i in dense_points().flip)
    expected = mirror_landmarks(dense_of(plain, 32).double(), 32, order)
    torch.testing.assert_close(dense_of(labels, 32).double(), expected, atol=1e-3, rtol=0)


def test_the_hybrid_is_the_weighted_sum_of_its_parts() -> None:
    x, y = torch.randn(5, 9) * 20, torch.randn(5, 9) * 20
    parts = 1.5 * Wing(w=15, epsilon=3)(x, y) + 0.5 * MSE()(x, y)
    torch.testing.assert_close(WingMSE()(x, y), parts)
    with pytest.raises(ValueError, match="w1 and w2"):
        WingMSE(w1=0, w2=0)


def test_true_points_decode_to_themselves_and_to_nearly_their_pose(problem: FaceProblem) -> None:
    model, targets = problem.build_model(), problem._targets_of("val")
    head = model.heads["points"]  # type: ignore[index]
    points = level_depth(targets.dense)
    output = ((points / 32).flatten(1) - head.mean) / head.std
    prediction = model.decode({"points": output})  # type: ignore[operator]
    torch.testing.assert_close(prediction.dense, points, atol=1e-4, rtol=0)
    torch.testing.assert_close(prediction.landmarks, prediction.dense[:, :68])
    near = targets.angles[:, 1].abs() < 60
    # what is left is shape that looks like pose: the fit is to the mean face
    assert (prediction.angles - targets.angles)[near].abs().mean() < 2.0
    assert model.losses({"points": output}, targets)["points"] < 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("unit", [256.0, 256 / 255])
def test_the_mean_face_has_loss_one_in_any_unit(unit: float) -> None:
    problem = made(f"losses.unit={unit}")
    targets = problem._targets_of("train")
    output = {"points": torch.zeros(len(targets.angles), 1560)}
    assert problem.build_model().losses(output, targets)["points"].item() == pytest.approx(1, rel=1e-4)  # type: ignore[operator]


def test_a_pose_head_is_a_second_task() -> None:
    problem = made("model.pose_head={kind: rotation_6d}", "strategy.name=pcgrad")
    assert problem.tasks == ("points", "pose")
    model = problem.build_model()
    images, targets = problem.batch(torch.arange(4), torch.Generator().manual_seed(0))
    output = model(images)
    assert set(model.losses(output, targets)) == {"points", "pose"}  # type: ignore[operator]
    turned = output | {"pose": output["pose"] + 1.0}
    assert not torch.equal(model.decode(turned).angles, model.decode(output).angles)  # type: ignore[operator]
    assert torch.equal(model.decode(turned).landmarks, model.decode(output).landmarks)  # type: ignore[operator]


def test_the_68_alone_are_a_choice() -> None:
    problem = made("model.points=landmarks")
    model = problem.build_model()
    prediction = model.decode(model(torch.zeros(2, 3, 32, 32)))  # type: ignore[operator]
    assert prediction.landmarks.shape == (2, 68, 3) and prediction.dense is None
    assert "dense" not in problem._stored_labels and "pose" not in problem._stored_labels


@pytest.mark.parametrize(
    ("backbone", "parameters", "gmacs"),
    [("mobilenetv2_100", 4_222_232, 0.393), ("resnet18", 11_976_792, 2.370), ("resnet50", 26_704_472, 5.341)],
)
def test_what_the_recipe_costs_at_full_size(backbone: str, parameters: int, gmacs: float) -> None:
    """Table 3 has 4.18 M and 0.39 gMac for MobileNetV2; docs/systems/basak2023.md says what its other row is not."""
    config = load_run_config("basak2023", [f"model.backbone={backbone}"])
    model = Dense(config, FaceStatistics.blank(config.labels, 256, 68, 520)).eval()  # type: ignore[attr-defined]
    assert parameter_count(model) == parameters
    assert multiply_accumulates(model, torch.zeros(1, 3, 256, 256)) / 1e9 == pytest.approx(gmacs, abs=5e-4)


def test_it_learns(problem: FaceProblem) -> None:
    off = dict.fromkeys(Augmentation.model_fields, 0.0)
    history = train(*(lambda p: (p, p.config))(made("training.epochs=20", f"augmentation={off}"))).history
    assert history[-1]["train/points"] < 0.3 * history[0]["train/points"]
    assert history[-1]["val/nme"] < 0.8 * problem.trivial_metrics("val")["nme"]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered faces as position maps on disk."""
    folder = tmp_path_factory.mktemp("maps")
    recipe = SyntheticRecipe(train=0, val=0, test=24, image_size=64, margin=1.0, seed=9, **builders.FAR)
    return builders.exported(
        ensure_pack(recipe, folder=folder / "faces", workers=1), folder / "maps", "300w_lp_position_maps"
    )


def test_position_maps_pack_with_their_dense_points(maps: Path, tmp_path: Path) -> None:
    packed = pack_dataset(open_dataset("300w_lp_position_maps", maps), tmp_path / "pack", CropSettings(64), workers=1)
    labels = packed.split("train").labels
    assert labels["dense"].shape[1:] == (520, 3)
    np.testing.assert_allclose(labels["dense"][:, :68], labels["landmarks"])
    again = open_pack(packed.folder, verify=True)
    assert again.dense_flip is not None and len(again.dense_flip) == 520


def test_a_system_learns_from_a_users_points_in_position_maps(maps: Path, tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(np.linspace(60, 195, 8), np.linspace(60, 200, 9)), -1).reshape(-1, 2)
    np.savetxt(maps / "dense_points.txt", grid.T)
    try:
        splits = SplitSettings(0.4)
        packed = pack_dataset(
            open_dataset("300w_lp_position_maps", maps), tmp_path / "pack", CropSettings(64), splits, workers=1
        )
        count = packed.split("train").labels["dense"].shape[1]
        assert 68 < count <= 68 + len(grid)
        config = load_run_config(
            "basak2023",
            [*SMALL[1:], f"data={{name: packed, train: {packed.folder}, image_size: 32}}", "model.pose_head=null"],
        )
        problem = FaceProblem(config)  # type: ignore[arg-type]
        problem._packs = dict.fromkeys(("train", "val", "test"), packed)  # too few faces for validation in yaw bins
        problem._statistics = problem._measure()
        images, targets = problem.batch(torch.arange(6), torch.Generator().manual_seed(1))
        assert targets.dense is not None and targets.dense.shape == (6, count, 3)
        model = problem.build_model()
        assert torch.isfinite(model.losses(model(images), targets)["points"])  # type: ignore[operator]
        torch.testing.assert_close(targets.dense[:, :68, :2], targets.landmarks[..., :2], atol=1e-4, rtol=0)
    finally:
        (maps / "dense_points.txt").unlink()


def test_data_without_dense_points_is_refused(tmp_path: Path) -> None:
    faces = ensure_pack(
        SyntheticRecipe(train=0, val=0, test=30, image_size=48, margin=1.2, seed=3, **builders.FAR),
        folder=tmp_path / "faces",
        workers=1,
    )
    files = builders.exported(faces, tmp_path / "files", "300w_lp")
    basis = open_basis(files / "basis")
    dataset = open_dataset("300w_lp_3d", files, basis)
    pack_dataset(dataset, tmp_path / "pack", CropSettings(48), SplitSettings(0.5), workers=1)
    data = f"data={{name: packed, train: {tmp_path / 'pack'}, test: {tmp_path / 'pack'}}}"
    problem = FaceProblem(load_run_config("basak2023", [*SMALL[1:], data]))  # type: ignore[arg-type]
    pack = open_pack(tmp_path / "pack")
    problem._packs = dict.fromkeys(("train", "val", "test"), pack)
    with pytest.raises(InputError, match=r"cannot train this dense system, which also needs dense points"):
        problem._check()
