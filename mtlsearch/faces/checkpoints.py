"""A trained system from its checkpoint alone: no data is needed to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.systems import SYSTEMS, System
from mtlsearch.faces.targets import FaceStatistics
from mtlsearch.training.checkpoint import load_weights
from mtlsearch.training.merge import Tree, merge
from mtlsearch.training.recipes import parse_run_config


@dataclass(frozen=True)
class LoadedSystem:
    """A system in eval mode, with what its file says: config, side of its input in pixels, epoch and its metrics."""

    config: FaceRunConfig
    model: System
    image_size: int
    epoch: int
    metrics: dict[str, float]


def load_system(path: Path, device: str | torch.device = "cpu") -> LoadedSystem:
    """The system at `path`, winner.safetensors of a study or best.safetensors of a run.

    Raises:
        InputError: the file is no checkpoint of ours, belongs to another problem, or does not fit its own config.
    """
    weights = load_weights(path)
    config = parse_run_config(without_pretrained(weights.config), str(path))
    if not isinstance(config, FaceRunConfig):
        raise InputError(f"{path} belongs to the problem {config.problem}, not to faces")
    shape = weights.tensors.get("data_shape")
    if shape is None or shape.shape != (3,):
        raise InputError(
            f"{path} does not say its input's size: it was written by an mtlsearch before 0.1; train again"
        )
    image_size, points, dense = (int(number) for number in shape)
    model = SYSTEMS[config.system](config, FaceStatistics.blank(config.labels, image_size, points, dense))
    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the config: {str(error).splitlines()[-1].strip()}") from None
    model = model.to(device).to(memory_format=torch.channels_last)
    return LoadedSystem(config, model.eval(), image_size, weights.epoch, weights.metrics)


def without_pretrained(tree: Tree) -> Tree:
    """A run config tree whose model fetches no weights: they come from a file, or its shape alone is of interest."""
    model = tree.get("model")
    has = isinstance(model, dict) and "pretrained" in model
    return merge(tree, {"model": {"pretrained": False}}) if has else tree
