"""The sections that face problems add to the run config. Each system adds its own."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from mtlsearch.faces.augmentation import Augmentation
from mtlsearch.faces.packs.fetching import is_uri
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
from mtlsearch.training.config import RunConfig
from mtlsearch.training.schema import Section

ImageSize = Annotated[int, Field(ge=32, le=1024)]


class SyntheticData(Section):
    """The library's own rendered faces; `SyntheticRecipe` says what each number means."""

    name: Literal["synthetic"] = "synthetic"
    image_size: ImageSize = 120
    train: PositiveInt = 20_000
    val: PositiveInt = 1_000
    test: PositiveInt = 2_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    margin: Annotated[float, Field(ge=1, le=2)] = 1.25

    @property
    def recipe(self) -> SyntheticRecipe:
        return SyntheticRecipe(**self.model_dump(exclude={"name"}))


def _absolute(folder: str) -> str:
    """Workers of a search run in other folders. A URI is one from everywhere."""
    if is_uri(folder):
        return folder
    return str(Path(folder).expanduser().absolute())


PackFolder = Annotated[str, AfterValidator(_absolute)]


class PackedData(Section):
    """Packs that `python -m mtlsearch.data` made, of real or rendered faces, by their folders.

    A folder may be a URI, such as s3://bucket/packs/300w_lp: each machine then fetches a copy of its own, once.

    train: the pack of the training split, and of the others where they are not named; val, test: packs of their own;
    image_size: side of the network's input, by default that of the training pack's crops.
    """

    name: Literal["packed"]
    train: PackFolder
    val: PackFolder | None = None
    test: PackFolder | None = None
    image_size: ImageSize | None = None

    def folder(self, split: str) -> str:
        """The pack that a split is read from."""
        return getattr(self, split) or self.train


DataConfig = Annotated[SyntheticData | PackedData, Field(discriminator="name")]


class FaceRunConfig(RunConfig):
    """A run config of a face problem; `system` says which subclass a tree belongs to. Each adds `model`."""

    system: str
    data: DataConfig = SyntheticData()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _stages_have_smaller_images(self) -> FaceRunConfig:
        for stage in self.training.stages:
            limit = self.data.image_size or 1024
            if stage.image_size is not None and not 32 <= stage.image_size <= limit:
                raise ValueError(
                    f"training.stages: image_size must be from 32 to data.image_size, {limit}, got {stage.image_size}"
                )
        return self

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Names of the losses, in the order in which the strategy sees them."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """What training batches carry: landmarks, angles and, where they are learned from, visible, dense and the
        parameters as pose, shape, expression."""

    @property
    def points(self) -> int | None:
        """Landmarks that the system gives; None: as many as its training data have."""
        return None

    @property
    @abstractmethod
    def needs_depth(self) -> bool:
        """Whether it learns from 68 landmarks in 3D; otherwise those of any data set will do."""
