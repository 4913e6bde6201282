"""Packs written in the layout of a published data set, so that other people's code, and our own loaders, can read them.

The images are the stored ones, margin and all, as JPEG; a pack with a stored size of 450 gives the published size. The
model that the parameters belong to is written beside them, as the text files that 3DDFA's demonstration keeps, and so
is a file that says where the faces come from, so that they are never taken for the published ones: `datasets.origin`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.io

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces.datasets.origin import Origin
from mtlsearch.faces.datasets.w300_lp_position_maps import LANDMARKS_FILE
from mtlsearch.faces.geometry import orthonormalize, project
from mtlsearch.faces.metrics import to_21_points
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, SHAPE_MODES, LandmarkBasis, morphable_model
from mtlsearch.faces.morphable.position_maps import landmark_texels, position_map
from mtlsearch.faces.packs.pack import SYNTHETIC, Pack, pack_lock
from mtlsearch.faces.packs.scratch import PLAN_FILE, begin, goes_on
from mtlsearch.training.problem import Progress

JPEG_QUALITY = 95
_SHAPES, _EXPRESSIONS = 199, 29  # of the Basel Face Model, as the published files have them

Labels = dict[str, npt.NDArray[Any]]
"""One face's labels, float64"""


@dataclass(frozen=True)
class Layout:
    """stem: of face number i (from 1), under the folder; points: labels -> the landmarks among the .mat's variables;
    position_maps: whether a .npy goes with them; dimensions: of the landmarks that it takes."""

    stem: str
    points: Callable[[Labels], Labels]
    position_maps: bool = False
    dimensions: int = 3


def export_pack(pack: Pack, split: str, folder: str | Path, layout: str, progress: Progress | None = None) -> int:
    """Write a split of a pack as `folder` and say how many faces it holds.

    layout: "aflw2000" and "300w_lp" (.jpg and .mat), or "300w_lp_position_maps" (.jpg, .npy and .mat, of our own
    model's faces only). The folder appears when it is complete; what is unfinished lies in `<folder>.partial-export`,
    and the same call goes on with it. Raises InputError for another layout, a folder that is not empty, and a pack
    without the parameters.
    """
    folder = Path(folder).resolve()
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    packed, form = pack.split(split), LAYOUTS[layout]
    missing = {"landmarks", "angles", "pose", "shape", "expression"} - packed.labels.keys()
    if not missing and packed.labels["landmarks"].shape[1:] not in [(68, 3), (68, form.dimensions)]:
        missing = {f"68 landmarks in {form.dimensions}D"}
    if missing:
        raise InputError(f"{pack} cannot be exported as {layout}: it has no {', '.join(sorted(missing))}")
    if form.position_maps and pack.source != SYNTHETIC:
        raise InputError(f"position maps are made from our own model's faces, and {pack.folder} holds {pack.source}")
    with pack_lock(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not empty; give a new folder")
        _write(pack, split, folder, layout, progress)
    return len(packed)


def _write(pack: Pack, split: str, folder: Path, layout: str, progress: Progress | None) -> None:
    packed, form = pack.split(split), LAYOUTS[layout]
    scratch = folder.with_name(f"{folder.name}.partial-export")
    plan = {"kind": "export", "pack": pack.digest, "split": split, "layout": layout}
    if not goes_on(scratch, plan, "*.mat"):
        begin(scratch, plan)
    faces = "rendered faces" if pack.rendered else f"{pack.source} faces"
    Origin(faces, pack.rendered, pack.digest).save(scratch)
    if pack.basis is not None:
        save_landmark_basis(pack.basis, scratch / "basis")
    if form.position_maps:
        np.savetxt(scratch / LANDMARKS_FILE, landmark_texels(morphable_model().mesh).T, fmt="%d")
    for i in range(len(packed)):
        stem = scratch / form.stem.format(i + 1)
        if not stem.with_suffix(".mat").exists():  # written last
            labels = {
                name: values[i].astype(np.float64)
                for name, values in packed.labels.items()
                if values.dtype.kind in "fb"
            }
            _write_face(stem, packed.images[i], labels, form)
        if progress is not None:
            progress(i + 1, len(packed))
    scratch.rename(folder)
    (folder / PLAN_FILE).unlink()


def save_landmark_basis(basis: LandmarkBasis, folder: Path) -> None:
    """Write u_base.txt, w_shp_base.txt and w_exp_base.txt, exact to the last bit; `load_landmark_model` reads them."""
    folder.mkdir(exist_ok=True)
    for name, array in (("u_base", basis.mean), ("w_shp_base", basis.shape), ("w_exp_base", basis.expression)):
        np.savetxt(folder / f"{name}.txt", array.reshape(3 * 68, -1), fmt="%.17g")


def _aflw2000_points(labels: Labels) -> Labels:
    points = labels["landmarks"] + [1, 1, 0]  # pixels in these files count from 1; see `datasets.fitted_mat`
    visible = to_21_points(labels["visible"][None, :, None])[0, :, 0] > 0.5
    return {
        "pt2d": np.where(visible[:, None], to_21_points(points[None, :, :2])[0], -1).T,
        "pt3d_68": points.T,
    }


def _300w_lp_points(labels: Labels) -> Labels:
    return {"pt2d": labels["landmarks"][:, :2].T + 1}


LAYOUTS = {
    "aflw2000": Layout("image{:05d}", _aflw2000_points),
    "300w_lp": Layout("Synthetic/Synthetic_{:06d}_1_0", _300w_lp_points, dimensions=2),
    "300w_lp_position_maps": Layout("Synthetic/Synthetic_{:06d}_1_0", _300w_lp_points, position_maps=True),
}


def _write_face(stem: Path, image: npt.NDArray[np.uint8], labels: Labels, form: Layout) -> None:
    stem.parent.mkdir(exist_ok=True)
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    stem.with_suffix(".jpg").write_bytes(encoded.tobytes())
    if form.position_maps:
        model = morphable_model()
        points = model.vertices(labels["shape"], labels["expression"])
        vertices = project(points, labels["pose"], len(image), float(labels["inverse_distance"]))
        np.save(stem.with_suffix(".npy"), position_map(vertices, model))
    written = io.BytesIO()
    scipy.io.savemat(written, _variables(labels) | form.points(labels), do_compression=True)
    unfinished = stem.with_suffix(".new")
    unfinished.write_bytes(written.getvalue())
    unfinished.rename(stem.with_suffix(".mat"))


def _variables(labels: Labels) -> Labels:
    """The variables of the published files; ours has no texture, so Tex_Para, Color_Para and Illum_Para are 0."""
    pose = labels["pose"].reshape(3, 4)
    _, scale = orthonormalize(pose[:, :3])
    shape, expression = np.zeros((_SHAPES, 1)), np.zeros((_EXPRESSIONS, 1))
    shape[:SHAPE_MODES, 0], expression[:EXPRESSION_MODES, 0] = labels["shape"], labels["expression"]
    return {
        "roi": np.zeros((1, 4), np.int16),
        "Illum_Para": np.zeros((1, 10)),
        "Color_Para": np.zeros((1, 7)),
        "Tex_Para": np.zeros((_SHAPES, 1)),
        "Shape_Para": shape,
        "Exp_Para": expression,
        "Pose_Para": np.concatenate([np.radians(labels["angles"]), pose[:, 3] + [1, 1, 0], [scale]])[None],
    }
