"""The published data sets by name. A new one is a file beside these and its line here."""

from __future__ import annotations

from pathlib import Path

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces.datasets.aflw import AFLW
from mtlsearch.faces.datasets.aflw2000 import AFLW2000, AFLW2000Reannotated
from mtlsearch.faces.datasets.aflw_3ddfa import AFLW3DDFA
from mtlsearch.faces.datasets.dataset import DATA_VARIABLE, FaceDataset, FaceSample
from mtlsearch.faces.datasets.three_ddfa import ThreeDDFA
from mtlsearch.faces.datasets.w300_lp import W300LP, W300LP3D
from mtlsearch.faces.datasets.w300_lp_position_maps import W300LPPositionMaps
from mtlsearch.faces.morphable.morphable_model import LandmarkBasis
from mtlsearch.faces.morphable.published_models import load_3ddfa, load_landmark_model

_CLASSES: tuple[type[FaceDataset], ...] = (
    ThreeDDFA,
    AFLW,
    AFLW3DDFA,
    AFLW2000,
    AFLW2000Reannotated,
    W300LP,
    W300LP3D,
    W300LPPositionMaps,
)
DATASETS: dict[str, type[FaceDataset]] = {dataset.name: dataset for dataset in _CLASSES}


def dataset_class(name: str) -> type[FaceDataset]:
    """The data set of a name. InputError, with the nearest name, for one that is unknown."""
    if name not in DATASETS:
        raise InputError(unknown_name("data set", name, DATASETS))
    return DATASETS[name]


def open_dataset(name: str, root: str | Path, basis: LandmarkBasis | None = None) -> FaceDataset:
    """A published data set as a sequence of `FaceSample`, read from the folder that holds it.

    root: where it does not exist, it is looked for under MTLSEARCH_DATA; basis: the morphable model of its parameters,
    for the data sets whose landmarks come from them. Raises InputError when the folder holds no such data set; a
    damaged sample raises it when it is read.
    """
    return dataset_class(name)(root, basis)


def open_basis(folder: str | Path) -> LandmarkBasis:
    """The 68 rows of 3DDFA's morphable model, from the folder of these rows alone (u_base, …) or of the whole model.

    Raises InputError, naming the file, for anything missing, misshapen or unsafe.
    """
    folder = Path(folder)
    if any((folder / f"u_base{ending}").is_file() for ending in (".txt", ".npy")):
        return load_landmark_model(folder).landmark_basis
    return load_3ddfa(folder).landmark_basis


__all__ = ["DATASETS", "DATA_VARIABLE", "FaceDataset", "FaceSample", "dataset_class", "open_basis", "open_dataset"]
