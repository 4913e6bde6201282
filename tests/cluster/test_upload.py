"""What `ray job submit --working-dir .` uploads, by Ray's own packaging."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000


def uploaded(root: Path, target: Path) -> set[str]:
    create_package(str(root), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


def test_the_repository_uploads_under_5_megabytes(tmp_path: Path) -> None:
    names = uploaded(ROOT, tmp_path / "package.zip")
    assert (tmp_path / "package.zip").stat().st_size < 5 * MEGABYTE
    assert {"mtlsearch/tune.py", "mtlsearch/recipes/kim2023.yaml", "search_spaces/full.yaml"} <= names


def test_data_results_and_environments_are_not_uploaded(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    heavy = [
        ".venv/lib/torch.so",
        ".git/objects/pack",
        "mlflow.db",
        "mlruns/1/meta.yaml",
        "packs/aflw2000/manifest.json",
        "my_pack/train.images.npy",
        "data/AFLW2000/image.jpg",
        "results/study/journal.jsonl",
        "results/reference/table.csv",
        "tests/search/test_search.py",
        "examples/weights.safetensors",
        "mtlsearch/__pycache__/tune.pyc",
    ]
    light = ["mtlsearch/tune.py", "mtlsearch/faces/data/pack.py", "search_spaces/full.yaml", "examples/own_problem.py"]
    for name in [*heavy, *light]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, root)
    assert uploaded(root, tmp_path / "package.zip") == {*light, ".gitignore", ".rayignore"}
