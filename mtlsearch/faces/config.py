"""The sections that face problems add to the run config. Each system adds `model` and `losses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from mtlsearch.faces.augmentation import Augmentation
from mtlsearch.faces.synthetic import SyntheticRecipe
from mtlsearch.training.config import RunConfig
from mtlsearch.training.schema import Section


class SyntheticData(Section):
    """The library's own rendered faces; `SyntheticRecipe` says what each number means."""

    name: Literal["synthetic"] = "synthetic"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 120
    train: PositiveInt = 20_000
    val: PositiveInt = 1_000
    test: PositiveInt = 2_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    margin: Annotated[float, Field(ge=1, le=2)] = 1.25

    @property
    def recipe(self) -> SyntheticRecipe:
        return SyntheticRecipe(**self.model_dump(exclude={"name"}))


class FaceRunConfig(RunConfig):
    """A run config of a face problem; `system` says which subclass a tree belongs to."""

    system: str
    data: SyntheticData = SyntheticData()
    augmentation: Augmentation = Augmentation()
    model: Any
    losses: Any
