"""benchmarks/gpu.py, small and on the CPU, where neither Ray nor MLflow is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.modules["ray"] = sys.modules["mlflow"] = None  # an import of either raises ImportError
from benchmarks import gpu
gpu.RECIPES = ("kim2023",)
sys.argv = ["gpu", "recipes", "--device", "cpu", "--quick", "--rounds", "1", "--output", sys.argv[1]]
gpu.main()
"""


def test_the_recipes_part_runs_without_ray_and_mlflow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads((tmp_path / "figures.json").read_text())["tables"]
    ((name, batch, precision, fed, constant, percent),) = table["rows"]
    assert (name, batch, precision) == ("kim2023", 4, "float32")
    assert percent == 100 * fed / constant > 0
    assert "kim2023" in (tmp_path / "table.md").read_text()
