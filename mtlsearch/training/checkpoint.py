"""Checkpoints: `last.pt` continues a run exactly, `best.safetensors` is what a user takes away.

Both are written to a temporary name and renamed, so a crash leaves the former one whole. Nothing is unpickled:
last.pt is loaded with `weights_only=True`, weights are safetensors.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mtlsearch.errors import InputError

LAST = "last.pt"
BEST = "best.safetensors"


@dataclass(frozen=True)
class Weights:
    """A model's weights with the run config they belong to and the metrics of the epoch they come from."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    epoch: int
    metrics: dict[str, float]


def save_weights(path: Path, model: torch.nn.Module, config: dict[str, Any], row: dict[str, float]) -> None:
    """The model's weights, its run config and the metrics of its epoch in one file, so that they travel together."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"config": json.dumps(config), "row": json.dumps(row)}
    _write(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_weights(path: Path) -> Weights:
    """Reads what `save_weights` wrote.

    Raises:
        InputError: the file is missing, truncated, or was not written by mtlsearch.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise InputError(f"no checkpoint {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    if "config" not in metadata or "row" not in metadata:
        raise InputError(f"{path} carries no run config: it was not written by mtlsearch")
    try:
        row = json.loads(metadata["row"])
        return Weights(tensors, dict(json.loads(metadata["config"])), int(row["epoch"]), row)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: what it says of its run config is damaged") from None


def save_last(path: Path, state: dict[str, Any]) -> None:
    _write(path, lambda temporary: torch.save(state, temporary))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Raises InputError where the disk is full or the folder cannot be written; torch has no one error for that."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be written ({reason}); {free:.1f} MB are free there") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_last(path: Path) -> dict[str, Any]:
    """Reads what `save_last` wrote.

    Raises:
        InputError: the file is truncated or holds anything but tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be continued from ({reason}); delete it to start anew") from None
    expected = {"config", "model", "optimizer", "schedule", "history", "best", "random", "threads"}
    if not isinstance(state, dict) or not expected <= state.keys():
        raise InputError(f"{path} is not a checkpoint of a run; delete it to start anew")
    return state
