"""Packs written in the layout of a published data set, so that other people's code, and our own loaders, can read them.

The images are the stored ones, margin and all, as JPEG; a pack with a stored size of 450 gives the published size. The
model that the parameters belong to is written beside them, as the text files that 3DDFA's demonstration keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.io

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces.datasets.w300_lp_position_maps import LANDMARKS_FILE
from mtlsearch.faces.geometry import orthonormalize, project
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.morphable_model import EXPRESSION_MODES, SHAPE_MODES, LandmarkBasis, morphable_model
from mtlsearch.faces.packs import SYNTHETIC, Pack
from mtlsearch.faces.position_maps import landmark_texels, position_map
from mtlsearch.training.problem import Progress

JPEG_QUALITY = 95
_SHAPES, _EXPRESSIONS = 199, 29  # of the Basel Face Model, as the published files have them

Labels = dict[str, npt.NDArray[Any]]
"""One face's labels, float64"""


def export_pack(pack: Pack, split: str, folder: str | Path, layout: str, progress: Progress | None = None) -> int:
    """Write a split of a pack under `folder` and say how many faces it holds.

    layout: "aflw2000" and "300w_lp" (.jpg and .mat), or "300w_lp_position_maps" (.jpg, .npy and .mat, of our own
    model's faces only). Raises InputError for another layout, a folder that is not empty, and a pack without the
    parameters.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    packed = pack.split(split)
    missing = {"landmarks", "angles", "pose", "shape", "expression"} - packed.labels.keys()
    if missing or packed.labels["landmarks"].shape[1:] != (68, 3):
        raise InputError(f"{pack} cannot be exported: it has no {', '.join(sorted(missing)) or '68 landmarks in 3D'}")
    if layout == "300w_lp_position_maps" and pack.source != SYNTHETIC:
        raise InputError(f"position maps are made from our own model's faces, and {pack.folder} holds {pack.source}")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    if pack.basis is not None:
        save_landmark_basis(pack.basis, folder / "basis")
    if layout == "300w_lp_position_maps":
        np.savetxt(folder / LANDMARKS_FILE, landmark_texels(morphable_model().mesh).T, fmt="%d")
    for i in range(len(packed)):
        labels = {
            name: values[i].astype(np.float64) for name, values in packed.labels.items() if values.dtype.kind in "fb"
        }
        LAYOUTS[layout](folder, i, packed.images[i], labels)
        if progress is not None:
            progress(i + 1, len(packed))
    return len(packed)


def save_landmark_basis(basis: LandmarkBasis, folder: Path) -> None:
    """Write u_base.txt, w_shp_base.txt and w_exp_base.txt, exact to the last bit; `load_landmark_model` reads them."""
    folder.mkdir()
    for name, array in (("u_base", basis.mean), ("w_shp_base", basis.shape), ("w_exp_base", basis.expression)):
        np.savetxt(folder / f"{name}.txt", array.reshape(3 * 68, -1), fmt="%.17g")


def _write_aflw2000(folder: Path, index: int, image: npt.NDArray[np.uint8], labels: Labels) -> None:
    points = labels["landmarks"] + [1, 1, 0]
    visible = to_21_points(labels["visible"][None, :, None])[0, :, 0] > 0.5
    pt2d = np.where(visible[:, None], to_21_points(points[None, :, :2])[0], -1)
    stem = folder / f"image{index + 1:05d}"
    _write_jpeg(stem, image)
    _write_mat(stem, labels, {"pt2d": pt2d.T, "pt3d_68": points.T})


def _write_300w_lp(folder: Path, index: int, image: npt.NDArray[np.uint8], labels: Labels) -> None:
    stem = folder / "Synthetic" / f"Synthetic_{index + 1:06d}_1_0"
    stem.parent.mkdir(exist_ok=True)
    _write_jpeg(stem, image)
    _write_mat(stem, labels, {"pt2d": labels["landmarks"][:, :2].T + 1})


def _write_position_map(folder: Path, index: int, image: npt.NDArray[np.uint8], labels: Labels) -> None:
    model = morphable_model()
    points = model.vertices(labels["shape"], labels["expression"])
    vertices = project(points, labels["pose"], len(image), float(labels["inverse_distance"]))
    stem = folder / "Synthetic" / f"Synthetic_{index + 1:06d}_1_0"
    stem.parent.mkdir(exist_ok=True)
    _write_jpeg(stem, image)
    _write_mat(stem, labels, {"pt2d": labels["landmarks"][:, :2].T + 1})
    np.save(stem.with_suffix(".npy"), position_map(vertices, model))


LAYOUTS: dict[str, Callable[[Path, int, npt.NDArray[np.uint8], Labels], None]] = {
    "aflw2000": _write_aflw2000,
    "300w_lp": _write_300w_lp,
    "300w_lp_position_maps": _write_position_map,
}
"""layout -> what writes face `index` of a folder"""


def _write_jpeg(stem: Path, image: npt.NDArray[np.uint8]) -> None:
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    stem.with_suffix(".jpg").write_bytes(encoded.tobytes())


def _write_mat(stem: Path, labels: Labels, points: Labels) -> None:
    """The variables of the published files; ours has no texture, so Tex_Para, Color_Para and Illum_Para are 0."""
    pose = labels["pose"].reshape(3, 4)
    _, scale = orthonormalize(pose[:, :3])
    shape, expression = np.zeros((_SHAPES, 1)), np.zeros((_EXPRESSIONS, 1))
    shape[:SHAPE_MODES, 0], expression[:EXPRESSION_MODES, 0] = labels["shape"], labels["expression"]
    # pixels in these files count from 1; see `datasets.fitted_mat`
    pose_para = np.concatenate([np.radians(labels["angles"]), pose[:, 3] + [1, 1, 0], [scale]])
    variables = {
        **points,
        "roi": np.zeros((1, 4), np.int16),
        "Illum_Para": np.zeros((1, 10)),
        "Color_Para": np.zeros((1, 7)),
        "Tex_Para": np.zeros((_SHAPES, 1)),
        "Shape_Para": shape,
        "Exp_Para": expression,
        "Pose_Para": pose_para[None],
    }
    scipy.io.savemat(stem.with_suffix(".mat"), variables, do_compression=True)
