"""Checkpoints of small systems, untrained: what the commands do with one does not depend on how good it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlsearch.faces.packs.exporting import export_pack
from mtlsearch.faces.packs.pack import ensure_pack
from mtlsearch.faces.problem import FaceProblem
from mtlsearch.training import load_run_config
from mtlsearch.training.checkpoint import save_weights
from mtlsearch.training.seeding import seeded

SMALL = ["data={train: 64, val: 48, test: 48, image_size: 32}", "model.backbone=test_resnet"]


def _checkpoint(folder: Path, recipe: str, *overrides: str) -> Path:
    config = load_run_config(recipe, [*SMALL, *overrides])
    problem = FaceProblem(config)  # type: ignore[arg-type]
    problem.prepare()
    with seeded(0):
        model = problem.build_model()
    path = folder / f"{recipe}.safetensors"
    save_weights(path, model, config.tree(), {"epoch": 3, "val/nme": 20.0})
    return path


@pytest.fixture(scope="session")
def morphable_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("morphable"), "quick")


@pytest.fixture(scope="session")
def dense_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("dense"), "basak2023")


@pytest.fixture(scope="session")
def cascade_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = ["model.channels=16", "model.stem=8", "data.image_size=64", "model.points=21"]
    return _checkpoint(tmp_path_factory.mktemp("cascade"), "zhang2018", *small)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 48 rendered faces in the layout of AFLW2000-3D."""
    folder = tmp_path_factory.mktemp("photographs") / "aflw2000"
    recipe = load_run_config("quick", SMALL).data.recipe  # type: ignore[attr-defined]
    export_pack(ensure_pack(recipe), "test", folder, "aflw2000")
    return folder
