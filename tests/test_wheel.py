"""The built wheel, used from an empty folder: what `pip install 'mtlsearch[search]'` gives a user."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, cwd: Path, *arguments: str) -> str:
    cwd.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_carries_spaces_recipes_and_types(installed: Path) -> None:
    package = installed / "mtlsearch"
    assert {path.stem for path in (package / "search_spaces").glob("*.yaml")} == {
        path.stem for path in (ROOT / "search_spaces").glob("*.yaml")
    }
    assert (package / "recipes" / "kim2023.yaml").exists()
    published = {path.stem for path in (package / "faces" / "evaluation" / "published").glob("*.yaml")}
    assert published == {"kim2023", "basak2023", "zhang2018", "targets"}
    templates = {path.name for path in (package / "search" / "report" / "templates").iterdir()}
    assert templates == {"report.html", "report.css", "report.js"}
    assert (package / "py.typed").exists()
    assert not (installed / "tests").exists()


def test_help_and_the_default_search_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert "Examples:" in run(installed, tmp_path / "help", "mtlsearch.tune", "--help")
    small = ["--set", "data={train: 64, val: 48, test: 48, image_size: 32}", "--set", "training.epochs=1"]
    few = ["--num-samples", "2", "--confirm-seeds", "1", "--address", "local"]
    screen = run(installed, tmp_path / "search", "mtlsearch.tune", *small, *few)
    assert "Winner: " in screen
    assert (tmp_path / "search" / "mlflow.db").exists()
    (report,) = (tmp_path / "search" / "results").glob("*/report.html")
    assert report.with_name("figures").is_dir()
    where = run(installed, tmp_path / "where", "mtlsearch")
    assert "python -m mtlsearch.tune" in where
