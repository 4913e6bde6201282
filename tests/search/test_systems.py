"""Each published system goes through the search by its own recipe and space, at reduced size."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from mtlsearch.search import load_plan, run_search

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("at_root", "shared_ray"),
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SMALL = ["model.backbone=test_resnet", "training={epochs: 1, batch_size: 16}"]
DATA = "data={{name: synthetic, image_size: {size}, train: 48, val: 24, test: 24}}"


@pytest.mark.parametrize(
    ("space", "overrides"),
    [
        ("kim2023", ["model.head={kind: linear}", DATA.format(size=32)]),
        ("basak2023", [DATA.format(size=32)]),
        ("zhang2018", ["model.channels=16", "model.stem=8", DATA.format(size=64)]),
        ("full", [DATA.format(size=64)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_space_searches_its_system(space: str, overrides: list[str], tmp_path: Path) -> None:
    plan = load_plan(space, [*SMALL, *overrides], {"num_samples": 3, "confirm": {"seeds": 0}, "sampler": "random"})
    outcome = run_search(
        plan,
        results=tmp_path / "results",
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        console=Console(file=io.StringIO(), width=200),
    )
    trials = outcome.study.of_phase("search")
    assert [trial.label for trial in trials[:2]] == [baseline.name for baseline in plan.baselines]
    assert [trial.status for trial in trials] == ["finished"] * 3, [trial.reason for trial in trials]
    assert all(math.isfinite(trial.best[name]) for trial in trials for name in plan.settings.objectives)
