"""docs/extending.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_STEP = re.compile(
    r"^`(?P<path>mtlsearch/[\w/]+\.py)`(?:, (?P<how>after|in place of) `(?P<anchor>[^\n]+)`)?:\n"
    r"```python\n(?P<code>.*?)```$",
    re.MULTILINE | re.DOTALL,
)

_USE = """
import torch
from mtlsearch import get_strategy, strategies
from mtlsearch.testing import check_strategy
from mtlsearch.training import load_run_config
from mtlsearch.faces.losses.log_cosh import LogCosh

assert "normalized_sum" in strategies()
check_strategy("normalized_sum")
jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.1]], dtype=torch.float64)
expected = torch.tensor([0.6, 1.8], dtype=torch.float64)
torch.testing.assert_close(get_strategy("normalized_sum").combine(jacobian), expected)

config = load_run_config("quick", [
    "strategy={name: normalized_sum, power: 0.5}",
    "losses.landmarks={kind: log_cosh, weight: 2}",
    "model.head={kind: two_layers, hidden: 16}",
    "data.train=64", "data.val=48", "data.test=48", "data.image_size=32", "training.epochs=1",
])
x = torch.tensor([0.0, 0.5, -30.0])
torch.testing.assert_close(LogCosh()(x, torch.zeros(3)), torch.cosh(x.double()).log().mean().float())

from mtlsearch.training import run_training
finished = run_training(config, threads=1)
assert finished.result.best["val/nme"] > 0

small = ["data.train=64", "data.val=48", "data.test=48", "data.image_size=32", "training.epochs=1"]
head = load_run_config("composed", [*small, "model.backbone=test_resnet", "model.heads.pose={kind: euler, weight: 2}"])
assert run_training(head, threads=1).result.best["train/pose"] > 0

from pathlib import Path
import cv2, numpy as np
from mtlsearch.faces.datasets import open_dataset
from mtlsearch.faces.datasets.packing import pack_dataset
root = Path("photographs")
root.mkdir()
points = np.random.default_rng(0).uniform(40, 90, (68, 2))
cv2.imwrite("photographs/one.jpg", np.zeros((120, 120, 3), np.uint8))
lines = "\\n".join(f"{x} {y}" for x, y in points)
(root / "one.pts").write_text(f"version: 1\\nn_points: 68\\n{{\\n{lines}\\n}}\\n")
np.testing.assert_allclose(open_dataset("300w", root)[0].landmarks, points - 1)
assert sum(pack_dataset(open_dataset("300w", root), "packed").counts.values()) == 1
print("all used")
"""


def test_the_extending_page_does_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mtlsearch", tmp_path / "mtlsearch", ignore=shutil.ignore_patterns("__pycache__"))
    steps = list(_STEP.finditer((ROOT / "docs" / "extending.md").read_text()))
    assert len(steps) == 10
    for step in steps:
        path = tmp_path / step["path"]
        if step["how"] is None:
            assert not path.exists()
            path.write_text(step["code"])
            continue
        text = path.read_text()
        assert text.count(step["anchor"]) == 1, step["anchor"]
        replacement = step["anchor"] + "\n" + step["code"].rstrip("\n") if step["how"] == "after" else step["code"]
        path.write_text(text.replace(step["anchor"], replacement))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", _USE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.endswith("all used\n"), result.stderr
