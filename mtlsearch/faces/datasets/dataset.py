"""What every data set of faces gives: a sequence of samples, and the facts that its numbers must be read with."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.datasets.origin import find_origin
from mtlsearch.faces.geometry import box_of_landmarks, crop_from_landmarks
from mtlsearch.faces.morphable.morphable_model import LandmarkBasis

DATA_VARIABLE = "MTLSEARCH_DATA"

_ENDINGS = (".jpg", ".png", ".mat", ".npy", ".pts")
_SMALL = 1 << 20  # bytes

# what no face has, and a damaged annotation may claim
REACH = 10  # times the longer side of the image, from its corner to a landmark
_FULL_TURN = 360.0
_PARAMETERS = 1e9  # the largest real ones are shape coefficients of some 1e6


@dataclass(frozen=True)
class FaceSample:
    """One face of a data set. Pixels are those of `image`, the origin at the centre of pixel (0, 0), y down.

    name: unique within the data set; image (H, W, 3) uint8 RGB; landmarks (K, 2 or 3), z in the same scale, towards
    the viewer; visible (K,) bool: the annotators gave the point (where not, its coordinates mean nothing); pose (3,)
    degrees: pitch, yaw, roll as the file has them, NaN where it does not say; parameters (62,) or None: 12 pose
    numbers, row-major 3×4 [sR | t] from model units to y-up pixels, 40 shape and 10 expression coefficients; box (4,):
    left, top, right, bottom of the box whose √(w·h) normalises the NME; crop (4,): the square that a network is shown;
    original (2, 3) or None: pixels of `image` to pixels of the photograph, where the published image is a crop already;
    dense (D, 3) or None: points of the whole face, the 68 landmarks first, with the data set's `dense_flip`.
    """

    name: str
    image: npt.NDArray[np.uint8]
    landmarks: Floats
    visible: npt.NDArray[np.bool_]
    pose: Floats
    parameters: Floats | None
    box: Floats
    crop: Floats
    original: Floats | None = None
    dense: Floats | None = None


class FaceDataset(ABC):
    """A published data set in the layout its authors gave it. Derive, set the facts, and add a line to `DATASETS`.

    root: the folder that holds it; one that does not exist here is looked for under the folder that MTLSEARCH_DATA
    names. basis: the 68 rows of the morphable model that the parameters belong to, where `needs_basis`. A damaged or
    missing file raises InputError when its sample is read, not before.
    """

    name: ClassVar[str]
    ground_truth: ClassVar[str]
    """one line: which annotation the landmarks are, and what normalises their NME"""
    points: ClassVar[int] = 68
    needs_basis: ClassVar[bool] = False
    cropped: ClassVar[bool] = False
    """the published images are crops: they are packed as they are, without a margin"""
    default_split: ClassVar[str] = "train"
    pose_limit: ClassVar[float | None] = None
    """samples with any angle beyond it (degrees) do not count in the pose error, by this data set's protocol"""

    dense_flip: npt.NDArray[np.integer] | None = None
    """(D,): the permutation that puts the dense points of a mirrored face back in order, where samples have them"""

    published: int | None = None
    """samples that the authors published, where that is one known number; None for what mtlsearch exported"""

    left_out: int = 0
    """faces that its lists name and that are no samples, since they lack what a sample needs"""

    def __init__(self, root: str | Path, basis: LandmarkBasis | None = None) -> None:
        self.root = find_root(root)
        if self.needs_basis and basis is None:
            raise InputError(
                f"data set {self.name} takes its landmarks from the parameters, and needs the morphable model that "
                f"they belong to: give the folder of its 68-point basis (u_base.txt, w_shp_base.txt, w_exp_base.txt)"
            )
        self.basis = basis
        self.names = self._list()
        if not self.names:
            raise InputError(f"{self.root} holds nothing of data set {self.name}; docs/data.md shows its layout")
        self.origin = find_origin(self.root, self.names)
        if self.origin is not None:
            self.published = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, asked for {index}")
        return self._read(index % len(self))

    def __iter__(self) -> Iterator[FaceSample]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {len(self):,} samples)"

    @property
    def source(self) -> str:
        """What the faces are: the data set's name, unless its folder says that they only have its layout."""
        return self.name if self.origin is None else f"{self.origin.faces} in the layout of {self.name}"

    def group(self, index: int) -> str:
        """The photograph behind a sample: variants of one photograph must never lie on both sides of a split."""
        return self.names[index]

    def split(self, index: int) -> str:
        """The split that the authors put a sample into."""
        return self.default_split

    def files(self, index: int) -> list[Path]:
        """The files that one sample is read from, whether they exist or not: those of its name."""
        return [self.root / f"{self.names[index]}{ending}" for ending in _ENDINGS]

    def shared_files(self) -> list[Path]:
        """The files that every sample is read from."""
        return []

    def stamps(self) -> npt.NDArray[np.uint32]:
        """(N,): a checksum of what each sample is read from: the names and sizes of its files, and the shared files,
        of which small ones count with all they hold."""
        shared = 0
        for path in self.shared_files():
            size = _size(path)
            shared = zlib.crc32(f"{path.name} {size}".encode(), shared)
            if 0 < size <= _SMALL:
                shared = zlib.crc32(path.read_bytes(), shared)
        return np.array(
            [
                zlib.crc32(repr([(path.name, _size(path)) for path in self.files(i)]).encode(), shared)
                for i in range(len(self))
            ],
            np.uint32,
        )

    def _stems(self, *endings: str) -> list[str]:
        """Files with any of these endings below the root, without them: a sample that lacks one is not overlooked."""
        found = {path.relative_to(self.root).with_suffix("") for end in endings for path in self.root.rglob(f"*{end}")}
        return sorted(path.as_posix() for path in found)

    @abstractmethod
    def _list(self) -> list[str]:
        """The samples' names, in a fixed order."""

    @abstractmethod
    def _read(self, index: int) -> FaceSample: ...


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a name from a database may be none that a file can have
        return -1


def find_root(root: str | Path) -> Path:
    """A data set's folder, as given or under MTLSEARCH_DATA."""
    root = Path(root).expanduser()
    base = os.environ.get(DATA_VARIABLE)
    if root.is_dir():
        return root
    if base and (Path(base) / root).is_dir():
        return Path(base) / root
    tried = f"{root}" + (f" and {Path(base) / root}" if base else "")
    raise InputError(
        f"no folder {tried}. Give the folder that holds the data set, or set {DATA_VARIABLE} to the folder above it"
    )


def face_sample(
    name: str,
    image: npt.NDArray[np.uint8],
    landmarks: Floats,
    pose: Floats,
    parameters: Floats | None = None,
    visible: npt.NDArray[np.bool_] | None = None,
    **boxes: Any,
) -> FaceSample:
    """A sample whose box and crop follow from its visible landmarks unless they are given.

    Raises InputError for numbers that no face has: a crop far beyond the image would fill the memory when it is cut.
    """
    if visible is None:
        visible = np.ones(len(landmarks), bool)
    seen = landmarks[visible]
    if not np.isfinite(landmarks).all() or not len(seen):
        raise InputError(f"{name}: its landmarks are not finite, or none is visible")
    facts = {"box": box_of_landmarks(seen), "crop": crop_from_landmarks(seen), **boxes}
    if not facts["crop"][2] - facts["crop"][0] > 1:
        raise InputError(f"{name}: its face is smaller than a pixel")
    reach = REACH * max(image.shape[:2])
    for what, numbers in (("landmarks", seen), ("box", facts["box"]), ("crop", facts["crop"])):
        if not np.abs(numbers).max() <= reach:
            raise InputError(
                f"{name}: the far end of its {what} lies {np.abs(numbers).max():.3g} pixels off, the image has "
                f"{image.shape[1]}×{image.shape[0]}"
            )
    if (np.abs(pose) > _FULL_TURN).any():
        raise InputError(f"{name}: its angles are {pose} degrees")
    if parameters is not None and not np.abs(parameters).max() <= _PARAMETERS:
        raise InputError(f"{name}: its parameters reach {np.abs(parameters).max():.3g}")
    return FaceSample(name, image, landmarks, visible, pose, parameters, **facts)
