"""The run config: everything that decides what one training run does.

`RunConfig` holds what any multi-task problem needs. A problem adds sections of its own (data, model, losses) by
subclassing it, and says which subclass a tree belongs to: see `mtlsearch.training.problem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from mtlsearch.gradients import get_strategy, strategy_info
from mtlsearch.gradients.engines import EngineName, check_engine
from mtlsearch.training.optimizers import OptimizerConfig
from mtlsearch.training.schedules import ScheduleConfig
from mtlsearch.training.schema import Section

DEFAULT_PROBLEM = "mtlsearch.faces.problem:FaceProblem"


class StrategyConfig(BaseModel):
    """A gradient-combination strategy by name, with its own hyperparameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Checks name and hyperparameters against the registry and writes out the defaults."""
        if not isinstance(data, Mapping):
            raise ValueError(f"needs a mapping such as {{name: pcgrad}}, got {data!r}")
        given = dict(data)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"needs the key name, got {data!r}")
        if not all(isinstance(key, str) for key in given):
            raise ValueError(f"its keys must be names of hyperparameters, got {data!r}")
        get_strategy(name, **given)
        defaults = {parameter.name: parameter.default for parameter in strategy_info(name).hyperparameters}
        return {"name": name, **defaults, **given}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Stage(Section):
    """The first epochs of a run made cheap: early stopping then judges a trial by a fraction of its work.

    What is trained in a stage counts for the best epoch of that stage only; the schedule of the learning rate counts
    steps, so that cheap epochs take a small part of it.
    """

    until: PositiveInt
    """the last epoch of the stage"""
    data: Annotated[float, Field(gt=0, le=1)] = 1.0
    """the share of the training samples that an epoch sees, drawn anew each time"""
    image_size: PositiveInt | None = None
    """side of the images as the network sees them, in training and validation; for problems that can resize theirs"""


class TrainingConfig(Section):
    """How long, in what portions and in which precision."""

    epochs: PositiveInt
    stages: list[Stage] = []
    """cheaper beginnings, in order; after the last of them an epoch is whole"""
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    """micro-batches per optimizer step; the gradients are combined once, over their mean"""
    engine: EngineName = "auto"
    """how task gradients are combined: "rows", "ghost" or "auto", which agree, or "feature"; see docs/gradients.md"""
    update_every: PositiveInt = 1
    """find the weights of the task gradients every so many steps only"""
    clip_norm: PositiveFloat | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"

    @model_validator(mode="after")
    def _stages_end_before_the_run(self) -> TrainingConfig:
        ends = [0, *(stage.until for stage in self.stages), self.epochs]
        if any(end <= before for before, end in pairwise(ends)):
            raise ValueError(
                f"stages must end one after the other and before the last of {self.epochs} epochs, got "
                f"until {', '.join(str(stage.until) for stage in self.stages)}"
            )
        return self

    def stage_of(self, epoch: int) -> Stage:
        """What an epoch, from 1 on, is trained with."""
        return next((stage for stage in self.stages if epoch <= stage.until), Stage(until=self.epochs))


class RunConfig(Section):
    """One training run. Subclassed by each problem for its own sections."""

    problem: str = DEFAULT_PROBLEM
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    strategy: StrategyConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig

    @model_validator(mode="after")
    def _as_many_samples_as_the_strategy_needs(self) -> RunConfig:
        needed = strategy_info(self.strategy.name).samples
        if self.training.accumulate < needed:
            raise ValueError(
                f"strategy {self.strategy.name!r} needs {needed} independent samples a step, each a micro-batch: "
                f"training.accumulate must be at least {needed}, got {self.training.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _an_engine_that_serves_the_strategy(self) -> RunConfig:
        strategy = get_strategy(self.strategy.name, **self.strategy.hyperparameters)
        check_engine(strategy, self.training.engine, self.training.update_every)
        if self.training.engine == "feature" and self.training.accumulate > 1:
            raise ValueError(
                "training.engine=feature combines gradients of one forward, so training.accumulate must be 1, got "
                f"{self.training.accumulate}"
            )
        return self

    def tree(self) -> dict[str, Any]:
        """The complete configuration as plain types, every default written out."""
        return self.model_dump(mode="json")
