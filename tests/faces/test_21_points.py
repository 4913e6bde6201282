"""AFLW's 21 points: the hidden ones have no coordinates, so nothing is learned, averaged or compared there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlsearch.faces.datasets import open_dataset
from mtlsearch.faces.datasets.packing import CropSettings, SplitSettings, pack_dataset
from mtlsearch.faces.evaluation.splits import mean_face, score_split
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.packs.pack import Pack, ensure_pack
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.faces.targets import Prediction
from mtlsearch.training import load_run_config
from tests.faces.datasets import builders

CASCADE = (
    "zhang2018",
    "model.channels=16",
    "model.stem=8",
    "model.backbone=test_resnet",
    "model.points=21",
    "losses.landmarks.visible=inside",
)
HEATMAPS = (
    "composed",
    "model={backbone: test_resnet, heads: {landmarks: {kind: heatmaps, channels: 8}, pose: {kind: binned_pose}}}",
)


@pytest.fixture(scope="module")
def aflw(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """AFLW's layout: 60 faces for training, 30 for validation, 30 for testing."""
    base = tmp_path_factory.mktemp("aflw")
    recipe = SyntheticRecipe(train=0, val=0, test=120, image_size=64, margin=1.5, seed=3)
    builders.aflw(ensure_pack(recipe, folder=base / "faces", workers=1), base / "files")
    dataset = open_dataset("aflw", base / "files")
    return pack_dataset(
        dataset, base / "pack", CropSettings(64), SplitSettings(0.3, frozenset(dataset.names[:30])), workers=1
    )


def problem(folder: Path, recipe: str, *overrides: str) -> FaceProblem:
    data = f"data={{name: packed, train: {folder}}}"
    made = FaceProblem(load_run_config(recipe, [data, *overrides]))  # type: ignore[arg-type]
    made.prepare()
    return made


@pytest.mark.parametrize("recipe", [CASCADE, HEATMAPS], ids=lambda recipe: recipe[0])
def test_hidden_points_are_never_learned(aflw: Pack, recipe: tuple[str, ...]) -> None:
    made = problem(aflw.folder, *recipe)
    assert "visible" not in made.config.labels, "the config does not ask for it"
    model = made.build_model()
    images, targets = made.batch(torch.arange(12), torch.Generator().manual_seed(0))
    assert targets.visible is not None and not targets.visible.all()
    moved = replace(targets, landmarks=torch.where(targets.visible[..., None], targets.landmarks, torch.tensor(20.0)))
    output = model(images)
    there, elsewhere = (model.losses(output, known) for known in (targets, moved))  # type: ignore[operator]
    assert there == elsewhere
    seen = replace(targets, landmarks=torch.where(targets.visible[..., None], 20.0, targets.landmarks))
    changed = model.losses(output, seen)  # type: ignore[operator]
    assert any(changed[task] != value for task, value in there.items()), "those that are visible are learned"


def test_the_constant_prediction_is_the_mean_of_the_points_that_are_there(aflw: Pack) -> None:
    labels = aflw.split("train").labels
    points = np.where(labels["visible"][..., None], labels["landmarks"].astype(float), np.nan)
    expected = np.nanmean(points, 0) - (aflw.stored_size - aflw.image_size) / 2
    mean = mean_face(aflw, "train", aflw.image_size)
    np.testing.assert_allclose(mean.landmarks[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(mean.angles[0].numpy(), labels["angles"].mean(0), atol=1e-4)
    made = problem(aflw.folder, *CASCADE)
    everything = Prediction(made._statistics.targets.landmarks.mean(0)[None], mean.angles)
    spoilt = score_split(everything.repeated(made.size("test")), aflw, "test", aflw.image_size).compute()
    assert made.trivial_metrics("test")["nme_whole"] < spoilt["nme_whole"] - 1


def test_the_constant_prediction_has_the_system_s_points() -> None:
    """A cascade of 21 points on 68-point data is compared on 21, and so is the constant beside it."""
    data = "data={image_size: 64, train: 48, val: 48, test: 48}"
    made = [
        FaceProblem(load_run_config(CASCADE[0], [*CASCADE[1:], data, f"model.points={points}"])) for points in (21, 68)
    ]  # type: ignore[arg-type]
    for each in made:
        each.prepare()
    few, many = (each.trivial_metrics("test") for each in made)
    assert few["nme_whole"] != many["nme_whole"] and few["mae"] == many["mae"]
    pack = made[0]._packs["train"]
    means = [mean_face(pack, "train", 64, points).landmarks for points in (21, 68)]
    torch.testing.assert_close(means[0], to_21_points(means[1]))
