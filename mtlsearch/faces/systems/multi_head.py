"""A backbone with task heads on its feature map: what every system but the cascade is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, model_validator
from torch import Tensor, nn

from mtlsearch.faces.backbones import Backbone, check_backbone
from mtlsearch.faces.config import FaceRunConfig
from mtlsearch.faces.heads import TaskHeadConfig
from mtlsearch.faces.systems.system import System
from mtlsearch.faces.targets import FaceStatistics, Prediction, Targets
from mtlsearch.training.schema import Section


class BackboneConfig(Section):
    """A timm model by name; pretrained: with the weights that timm downloads."""

    backbone: Annotated[str, AfterValidator(check_backbone)] = "mobilenetv3_small_100"
    pretrained: bool = False


class MultiHeadRunConfig(FaceRunConfig):
    """A run config from which task heads follow."""

    model: BackboneConfig

    @property
    @abstractmethod
    def heads(self) -> Mapping[str, TaskHeadConfig]:
        """The task heads by name."""

    @property
    def task_names(self) -> dict[str, dict[str, str]]:
        """Head -> its own name of a task -> the task's name in the run: the head's, where it has only one."""
        return {name: {task: task or name for task in head.weights} for name, head in self.heads.items()}

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for names in self.task_names.values() for task in names.values())

    @property
    def labels(self) -> tuple[str, ...]:
        asked = (label for head in self.heads.values() for label in head.labels)
        return tuple(dict.fromkeys(("landmarks", "angles", *asked)))

    @property
    def needs_depth(self) -> bool:
        return any(head.needs_depth for head in self.heads.values())

    def source_of(self, part: str) -> str | None:
        """The head that a part of the prediction is taken from: the first that learns it, else that it follows from."""
        learning = [name for name, head in self.heads.items() if part in head.learns]
        deriving = [name for name, head in self.heads.items() if part in head.derives]
        return next(iter([*learning, *deriving]), None)

    @model_validator(mode="after")
    def _heads_that_give_landmarks_and_angles(self) -> MultiHeadRunConfig:
        for part in ("landmarks", "angles"):
            if self.source_of(part) is None:
                gives = {name: [*head.learns, *head.derives] for name, head in self.heads.items()}
                raise ValueError(f"no head gives {part}, and a face needs landmarks and angles (heads give: {gives})")
        twice = [task for task in self.tasks if self.tasks.count(task) > 1]
        if twice:
            raise ValueError(f"two heads have a task named {twice[0]!r}; leave one out, or call a head otherwise")
        return self


class MultiHead(System):
    """Images (N, 3, S, S) -> {head: its output}; the backbone is what the tasks share."""

    def __init__(self, config: MultiHeadRunConfig, statistics: FaceStatistics) -> None:
        super().__init__(config, statistics)
        self.backbone = Backbone(config.model.backbone, config.model.pretrained, statistics.image_size)
        self.heads = nn.ModuleDict(
            {name: head.build(self.backbone.channels, statistics) for name, head in config.heads.items()}
        )
        self._task_names = config.task_names
        self._sources = {part: config.source_of(part) for part in ("landmarks", "angles", "dense")}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.backbone(images)
        return {name: head(features) for name, head in self.heads.items()}

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.backbone.parameters())

    def losses(self, output: dict[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        named: dict[str, Tensor] = {}
        for name, names in self._task_names.items():
            losses = self.heads[name].losses(output[name], targets)  # type: ignore[operator]
            named |= {names[task]: loss for task, loss in losses.items()}
        return named

    def decode(self, output: dict[str, Tensor]) -> Prediction:
        asked = dict.fromkeys(name for name in self._sources.values() if name is not None)
        parts = {name: self.heads[name].decode(output[name]) for name in asked}  # type: ignore[operator]
        found = {part: parts[name].get(part) for part, name in self._sources.items() if name is not None}
        return Prediction(found["landmarks"], found["angles"], found.get("dense"))
