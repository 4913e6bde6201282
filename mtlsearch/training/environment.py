"""What besides the run config decides a run's numbers: code, versions, threads, hardware."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mtlsearch.training.workers import Workers

#: packages whose version can change a number
_PACKAGES = ("torch", "numpy", "timm", "torchvision", "numba", "opencv-python")


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, within the container's quota where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))


def set_threads(count: int) -> None:
    """Gives torch `count` threads. A run repeats bit for bit only with as many threads as it had."""
    torch.set_num_threads(count)


def describe(problem: type | None = None) -> dict[str, Any]:
    """The environment of this process, as plain types for a record; of a user's own problem its source file too."""
    own = _file_digest(problem) if problem is not None and not problem.__module__.startswith("mtlsearch.") else None
    return {
        "code": {"version": _version("mtlsearch"), "digest": source_digest(), "problem": own, **_commit()},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "workers": Workers().size,
        "hardware": {
            "cpu": _cpu_name(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@lru_cache
def source_digest() -> str:
    """A digest of the package's own source files: the code that ran, whether committed or not."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _file_digest(problem: type) -> str | None:
    try:
        return hashlib.sha256(Path(inspect.getfile(problem)).read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):
        return None


@lru_cache
def _commit() -> dict[str, Any]:
    """The git commit of a source checkout and whether files differ from it; nothing for an installed wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return result.stdout.strip()


@lru_cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
