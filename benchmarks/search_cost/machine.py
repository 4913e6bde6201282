"""What a measurement was made on, in words."""

from __future__ import annotations

import platform
from importlib.metadata import version

from mtlsearch.training.environment import available_cpus, describe


def describe_machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "mlflow", "torch"))
    cpu = describe()["hardware"]["cpu"]
    return f"{available_cpus()} cores of {cpu}, Python {platform.python_version()}, {packages}"
