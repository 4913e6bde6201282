"""The training set that 3DDFA published (Guo et al., "Towards Fast, Accurate and Stable 3D Dense Face Alignment", ECCV
2020, and its code's first version): 300W-LP, cropped to 120×120, moved and turned.

    <root>/train_aug_120x120.zip                 or the folder train_aug_120x120
    <root>/train_aug_120x120.list.train, .val    file names, one a line
    <root>/param_all_norm.pkl, param_all_norm_val.pkl   (N, 62) whitened parameters, in the lists' order
    <root>/param_whitening.pkl                   mean and std (62); or param_mean.txt and param_std.txt
"""

from __future__ import annotations

import re
import threading
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.datasets.dataset import FaceDataset, FaceSample, face_sample
from mtlsearch.faces.datasets.fitted_mat import landmarks_of
from mtlsearch.faces.datasets.images import MAX_FILE_BYTES, load_image
from mtlsearch.faces.geometry import matrix_to_euler, orthonormalize
from mtlsearch.faces.morphable.published_models import load_whitening
from mtlsearch.faces.packs.safe_files import check_size, load_pickle

IMAGES = "train_aug_120x120"
SIZE = 120
_MAX_LIST_BYTES = 256 << 20
_PARAMETERS = {"train": "param_all_norm.pkl", "val": "param_all_norm_val.pkl"}


class ThreeDDFA(FaceDataset):
    """3DDFA's crops. Angles are those of the parameters' rotation: |yaw| ≤ 90°, like 300W-LP."""

    name = "3ddfa"
    ground_truth = "68 points in 3D, from the whitened parameters; NME over √(w·h) of the landmarks' box"
    needs_basis = True
    cropped = True

    def _list(self) -> list[str]:
        self._train = read_list(self.root / f"{IMAGES}.list.train")
        path = self.root / f"{IMAGES}.list.val"
        self._val = read_list(path) if path.exists() else []
        return [*self._train, *self._val]

    def split(self, index: int) -> str:
        return "train" if index < len(self._train) else "val"

    def group(self, index: int) -> str:
        """The photograph: 300W-LP's names with the folder's name before and a number more at the end."""
        return re.sub(r"(_\d+){3}$", "", PurePosixPath(self.names[index]).stem.replace("_Flip", ""))

    def files(self, index: int) -> list[Path]:
        return [self.root / IMAGES / self.names[index]]

    def shared_files(self) -> list[Path]:
        lists = [f"{IMAGES}.zip", f"{IMAGES}.list.train", f"{IMAGES}.list.val", *_PARAMETERS.values()]
        return [self.root / name for name in (*lists, "param_whitening.pkl", "param_mean.txt", "param_std.txt")]

    @cached_property
    def _parameters(self) -> Floats:
        whitening = load_whitening(self.root, 62)
        if whitening is None:
            raise InputError(
                f"{self.root} has no whitening, which is in param_whitening.pkl or in param_mean.txt and param_std.txt"
            )
        mean, std = whitening
        parts = []
        for split, names in (("train", self._train), ("val", self._val)):
            if names:
                path = self.root / _PARAMETERS[split]
                array = load_pickle(path)
                if not isinstance(array, np.ndarray) or array.shape != (len(names), 62) or array.dtype.kind != "f":
                    found = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                    raise InputError(
                        f"{path} must hold ({len(names)}, 62) floats like the list of files, found {found}"
                    )
                parts.append(array.astype(np.float32))
        parameters = np.concatenate(parts) * std + mean
        parameters[:, [3, 7]] -= 1  # 1-based pixels, as in `fitted_mat`
        return parameters

    def _read(self, index: int) -> FaceSample:
        assert self.basis is not None
        name, parameters = self.names[index], self._parameters[index]
        if not np.isfinite(parameters).all():
            raise InputError(f"{self.root}: the parameters of {name} are not finite")
        image = load_image(self.root / IMAGES / name, self._content(name))
        if image.shape != (SIZE, SIZE, 3):
            raise InputError(f"{self.root / IMAGES / name} must have {SIZE}×{SIZE} pixels, found {image.shape}")
        rotation, _ = orthonormalize(parameters[:12].reshape(3, 4)[:, :3])
        landmarks = landmarks_of(parameters, self.basis, SIZE)
        crop = np.array([-0.5, -0.5, SIZE - 0.5, SIZE - 0.5])
        return face_sample(name, image, landmarks, matrix_to_euler(rotation), parameters, crop=crop)

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        path = self.root / f"{IMAGES}.zip"
        if (self.root / IMAGES).is_dir():
            return None
        try:
            return zipfile.ZipFile(path)
        except Exception as error:  # a damaged directory can raise anything
            raise InputError(f"neither a folder {self.root / IMAGES} nor a readable {path.name} ({error})") from error

    @cached_property
    def _reading(self) -> threading.Lock:
        return threading.Lock()

    def _content(self, name: str) -> bytes | None:
        archive = self._archive
        if archive is None:
            return None
        member = f"{IMAGES}/{name}"
        try:
            info = archive.getinfo(member)
            if info.file_size > MAX_FILE_BYTES:
                raise InputError(f"{archive.filename}: {member} unpacks to {info.file_size:,} bytes")
            with self._reading, archive.open(info) as stream:
                return stream.read(MAX_FILE_BYTES)
        except KeyError:
            raise InputError(f"{archive.filename} has no member {member}") from None
        except InputError:
            raise
        except Exception as error:  # a damaged member can raise anything, by its method of compression
            raise InputError(f"{archive.filename}: {member} is damaged ({error})") from error


def read_list(path: Path) -> list[str]:
    """File names, one a line, none of which leads out of the data set."""
    try:
        names = check_size(path, _MAX_LIST_BYTES).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the list of files {path} ({error})") from error
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path} lists {name!r}, which lies outside the data set")
    return names
