"""A system of one's own, put together in YAML: any timm backbone with any task heads.

    system: composed
    model:
      backbone: resnet18
      heads:
        landmarks: {kind: points, loss: {kind: wing}}
        pose: {kind: rotation_6d, weight: 0.5}

The tasks are named after their heads. Landmarks and angles are taken from the first head that learns them; a head of
points gives angles too, by a Procrustes fit, where no head learns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from torch import nn

from mtlsearch.faces.heads import HeadConfig, TaskHeadConfig
from mtlsearch.faces.systems.multi_head import BackboneConfig, MultiHead, MultiHeadRunConfig

#: what the loop reports under train/ besides the losses
_REPORTED = ("grad_norm", "lr")


def _free_name(name: str) -> str:
    if hasattr(nn.ModuleDict(), name) or name in _REPORTED:
        raise ValueError(f"a head cannot be called {name!r}, which torch's modules or the training's reports use")
    return name


HeadName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_free_name)]


def _without_empty(heads: Any) -> Any:
    """`name: null` leaves a head of the base out."""
    return {name: head for name, head in heads.items() if head is not None} if isinstance(heads, dict) else heads


class ModelConfig(BackboneConfig):
    heads: Annotated[dict[HeadName, HeadConfig], Field(min_length=1), BeforeValidator(_without_empty)]


class ComposedRunConfig(MultiHeadRunConfig):
    system: Literal["composed"]
    model: ModelConfig

    @property
    def heads(self) -> Mapping[str, TaskHeadConfig]:
        return self.model.heads


class Composed(MultiHead):
    """Images (N, 3, S, S) -> {head: its output}."""

    Config = ComposedRunConfig
