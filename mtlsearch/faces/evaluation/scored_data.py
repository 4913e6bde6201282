"""What a checkpoint of faces is scored on: its run's own data, a pack, or a published data set in its own layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.faces.config import FaceRunConfig, SyntheticData
from mtlsearch.faces.datasets import open_basis, open_dataset
from mtlsearch.faces.datasets.packing import CropSettings, cached_pack
from mtlsearch.faces.packs.fetching import local_pack
from mtlsearch.faces.packs.pack import Pack, ensure_pack, open_pack
from mtlsearch.training.checkpoint import load_weights
from mtlsearch.training.problem import Progress
from mtlsearch.training.recipes import apply_overrides, parse_run_config


@dataclass(frozen=True)
class ScoredData:
    """A choice of data; nothing given means the run's own.

    dataset: name of a published data set, with the folder `root` that holds it, the folder `basis` of the 68-point
    basis where it needs one, and skip_bad to leave out what is damaged; pack: the folder of a pack. InputError for a
    choice that contradicts itself.
    """

    dataset: str | None = None
    root: Path | None = None
    basis: Path | None = None
    skip_bad: bool = False
    pack: Path | None = None

    def __post_init__(self) -> None:
        if (self.dataset is None) != (self.root is None):
            raise InputError("--data and --root belong together: the name of a data set and the folder that holds it")
        if self.dataset is not None and self.pack is not None:
            raise InputError("--data and --pack both say what to score on; give one of them")
        if self.dataset is None and (self.basis is not None or self.skip_bad):
            raise InputError("--basis and --skip-bad say how to read a data set; they go with --data")

    @property
    def given(self) -> bool:
        """Whether other data than the run's own are asked for."""
        return self.dataset is not None or self.pack is not None

    def open(
        self, config: FaceRunConfig, split: str, image_size: int, progress: Progress | None = None
    ) -> tuple[Pack, Pack | None]:
        """The pack to score on and, of the run's own data, that of the training split.

        image_size: side of the network's input, to which a published data set is cropped for a pack in the cache.
        """
        if self.pack is not None:
            return open_pack(self.pack), None
        if self.dataset is not None and self.root is not None:
            dataset = open_dataset(self.dataset, self.root, None if self.basis is None else open_basis(self.basis))
            return cached_pack(dataset, CropSettings(image_size, 1.0), skip_bad=self.skip_bad, progress=progress), None
        if isinstance(config.data, SyntheticData):
            own = ensure_pack(config.data.recipe, progress=progress)
            return own, own
        return local_pack(config.data.folder(split), progress), local_pack(config.data.folder("train"), progress)


def config_of(checkpoint: Path, overrides: Iterable[str] = ()) -> FaceRunConfig | None:
    """The run config in a checkpoint, with overrides; None where it is of another problem than faces.

    Raises InputError for an override that the trained weights do not admit: only data and training can change.
    """
    weights = load_weights(checkpoint)
    given = apply_overrides(weights.config, overrides)
    config = parse_run_config(given, str(checkpoint))
    if not isinstance(config, FaceRunConfig):
        return None
    trained = parse_run_config(weights.config, str(checkpoint)).tree()
    fixed = [key for key, value in config.tree().items() if key not in ("data", "training") and value != trained[key]]
    if fixed:
        raise InputError(f"--set: {', '.join(fixed)} belongs to the trained weights; data and training can change")
    return config
