"""The examples about gradients run, learn, and give the same on two processes as on one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("example", "tasks"), [("pcgrad_in_your_project", 2), ("torchjd_aggregator", 3)])
def test_example_learns(example: str, tasks: int) -> None:
    if "torchjd" in example:
        pytest.importorskip("torchjd")
    losses = re.findall(r"[a-z]+ (0\.\d+)[,;\n]", run(f"examples/{example}.py"))
    assert len(losses) == tasks and max(map(float, losses)) < 0.05


@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
def test_two_processes_train_as_one(framework: str) -> None:
    pytest.importorskip(framework)
    script = f"examples/pcgrad_with_{framework}.py"
    seen = []
    for processes in ("1", "2"):
        if framework == "lightning":
            out = run(script, processes)
        else:
            out = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, script)
        said = next(line for line in out.splitlines() if line.startswith(f"processes {processes}, "))
        seen.append([float(number) for number in re.findall(r"-?\d+\.\d+", said)])
        assert framework != "lightning" or "steps 20," in said, "the Trainer counts our steps"
    assert seen[0] == pytest.approx(seen[1], abs=2e-6)
