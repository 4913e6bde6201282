"""Checkpoints: `last.pt` continues a run exactly, `best.safetensors` is what a user takes away.

Both are written to a temporary name and renamed, so a crash leaves the former one whole. Nothing is unpickled:
last.pt is loaded with `weights_only=True`, weights are safetensors.
"""

from __future__ import annotations

import json
import os
import pickle
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    row = json.loads(metadata["row"])
    return Weights(tensors, json.loads(metadata["config"]), int(row["epoch"]), row)


def save_last(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_last(path: Path) -> dict[str, Any]:
    """Reads what `save_last` wrote.

    Raises:
        InputError: the file is truncated or holds anything but tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be continued from ({reason}); delete it to start anew") from None
    return state
