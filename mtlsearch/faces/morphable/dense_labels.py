"""Dense points of faces whose parameters are known: rendered ones carry no label for them, they follow exactly."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mtlsearch.faces.geometry import project
from mtlsearch.faces.morphable.dense_points import dense_points
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.targets import ModelBasis

#: the labels that they follow from
SOURCES = ("pose", "shape", "expression", "inverse_distance")


@lru_cache(maxsize=4)
def dense_basis(device: torch.device) -> ModelBasis:
    """The library's 520 points in model units: mean (520, 3) and modes (520, 3, 50), float64."""
    model = morphable_model()
    at, weights = dense_points().on_mesh(model.mesh)
    mean = (model.mean[at] * weights[..., None]).sum(1)
    fields = [(field[at] * weights[..., None, None]).sum(1) for field in (model.shape_modes, model.expression_modes)]
    modes = torch.cat([torch.from_numpy(field) for field in fields], dim=2)
    return ModelBasis(torch.from_numpy(mean).to(device), modes.to(device))


def dense_of(labels: dict[str, Tensor], height: int) -> Tensor:
    """(N, 520, 3) float32 pixels of an image of `height` rows, y down, from the labels `SOURCES` of rendered faces."""
    pose = labels["pose"]
    basis = dense_basis(pose.device)
    coefficients = torch.cat([labels["shape"], labels["expression"]], dim=1).float()
    model = basis.mean.float() + (coefficients @ basis.modes.float().flatten(0, 1).T).unflatten(1, (-1, 3))
    return project(model, pose.float(), height, labels["inverse_distance"].float())
