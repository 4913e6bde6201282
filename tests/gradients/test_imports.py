"""`from mtlsearch import PCGrad` loads torch and none of the heavy packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "mlflow", "optuna", "timm", "cv2", "scipy", "numba", "pydantic")


def run(*arguments: str) -> str:
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    code = (
        "import sys, mtlsearch\n"
        "assert 'torch' not in sys.modules, 'import mtlsearch alone loads nothing'\n"
        "from mtlsearch import PCGrad, MultiTaskOptimizer, get_strategy, strategies\n"
        "[get_strategy(name) for name in strategies()]\n"
        "assert 'torch' in sys.modules\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & set({HEAVY!r})))\n"
        "print([m for m in sys.modules if m[:10] == 'mtlsearch.' and m[10:19] != 'gradients'])"
    )
    # What torch itself loads is not ours.
    by_torch = run(
        "-c",
        f"import sys, torch; print(sorted({{m.partition('.')[0] for m in sys.modules}} & set({HEAVY!r})))",
    )
    heavy, others = run("-c", code).splitlines()
    assert heavy == by_torch.strip() == "[]"
    assert others == "[]"


def test_public_names() -> None:
    import mtlsearch
    import mtlsearch.gradients
    import mtlsearch.testing

    for module in (mtlsearch, mtlsearch.gradients, mtlsearch.testing):
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert set(module.__all__) <= set(dir(module))
    assert not hasattr(mtlsearch, "no_such_name")
