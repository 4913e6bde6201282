"""Smaller images and fewer of them in the first epochs, with every system."""

from __future__ import annotations

import math

import pytest
import torch

from mtlsearch.faces.augmentation import scaled
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.training import load_run_config, run_training

DATA = "data={name: synthetic, image_size: 64, train: 24, val: 12, test: 12}"
SMALL = {
    "quick": [],
    "composed": ["model.backbone=test_resnet"],
    "basak2023": ["model.backbone=test_resnet"],
    "zhang2018": ["model.channels=16", "model.stem=8", "model.backbone=test_resnet"],
}


@pytest.mark.parametrize("recipe", SMALL)
def test_every_system_trains_on_smaller_images_first(recipe: str) -> None:
    stages = "training.stages=[{until: 1, data: 0.5, image_size: 32}]"
    config = load_run_config(recipe, [*SMALL[recipe], DATA, "training.epochs=2", "training.batch_size=12", stages])
    cheap, whole = run_training(config).result.history
    # landmarks are in pixels of the whole size in both, so that the figures are of one kind
    assert math.isfinite(cheap["val/nme"])
    assert cheap["val/nme"] < 4 * whole["val/nme"]
    assert whole["best/epoch"] == 2


def test_batches_of_a_stage_are_the_whole_size_seen_from_further_away() -> None:
    problem = FaceProblem(load_run_config("quick", [DATA]))  # type: ignore[arg-type]
    problem.prepare()
    rows = torch.arange(4)
    images, targets = problem.batch(rows, torch.Generator().manual_seed(0))
    problem.resize(32)
    small, same = problem.batch(rows, torch.Generator().manual_seed(0))
    assert small.shape == (4, 3, 32, 32)
    torch.testing.assert_close(small, scaled(images, 32))
    torch.testing.assert_close(small.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.05, rtol=0)
    assert torch.equal(same.landmarks, targets.landmarks)
    problem.resize(None)
    assert torch.equal(problem.batch(rows, torch.Generator().manual_seed(0))[0], images)
