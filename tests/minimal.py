"""The gradient tests with the base dependencies and pytest only, at the oldest torch that pyproject.toml admits.

`make test-minimal` runs it: a throw-away virtual environment, apart from that of `make test`. Arguments go to pytest.
pip's own variables hold, for instance PIP_EXTRA_INDEX_URL for a torch without CUDA; TMPDIR says where the environment
lies (6 GB).
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def requirements() -> list[str]:
    """The base dependencies of pyproject.toml with torch at its lower bound, and the test extra's pytest."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = re.search(r"^dependencies = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    pytest = re.search(r'"(pytest>=[^"]+)"', text)
    assert base and pytest, "pyproject.toml must list dependencies and pytest"
    found = [*ast.literal_eval(base[1]), pytest[1]]
    oldest = [requirement.replace("torch>=", "torch==") for requirement in found]
    assert any(requirement.startswith("torch==") for requirement in oldest), f"no oldest torch among {found}"
    return oldest


def main(arguments: list[str]) -> int:
    wanted = requirements()
    with tempfile.TemporaryDirectory(prefix="mtlsearch-minimal-") as folder:
        print(f"Setting up a throw-away environment with {', '.join(wanted)} ...", flush=True)
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        if installed := subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted]).returncode:
            return installed
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [python, "-m", "pytest", "tests/gradients", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
