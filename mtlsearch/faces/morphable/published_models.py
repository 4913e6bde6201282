"""Morphable models that users bring: 3DDFA's files, a Basel Face Model, or the 68-landmark rows alone.

    load_3ddfa(folder)          u_shp.npy, u_exp.npy, w_shp_sim.npy, w_exp_sim.npy, keypoints_sim.npy and, if there,
                                param_whitening.pkl (3DDFA), or one bfm_noneck*.pkl (3DDFA-V2)
    load_bfm(shape, expression) .mat: shapeMU, shapePC, shapeEV, tl (BFM 2009), or mu_shape, w, tri, keypoints, and
                                mu_exp, w_exp (300W-LP's Model_Shape.mat and Model_Expression.mat)
    load_landmark_model(folder) u_base, w_shp_base, w_exp_base, param_mean, param_std as .txt or .npy

The models themselves are research-only or licensed, and none comes with the library. A flat array of 3·V numbers is
interleaved: x, y, z of vertex 0, then of vertex 1. Nothing here unpickles more than arrays (see `safe_files`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Floats, Ints
from mtlsearch.faces.geometry import FLIP_68
from mtlsearch.faces.morphable.coefficient_mirror import CoefficientMirror, fit_mirror
from mtlsearch.faces.morphable.morphable_model import LandmarkBasis
from mtlsearch.faces.packs.safe_files import check_size, load_mat, load_npy, load_pickle

_TEXT_LIMIT = 1 << 24
POSE_PARAMETERS = 12


@dataclass(frozen=True)
class MirrorFit:
    """The parameters of a mirrored face, as well as the model can say it.

    shape (S,), expression (E,); residual: root mean square over the vertices of the distance to the mirrored face, in
    the model's units; relative: the same over the root mean square of the face's own displacement from the mean.
    """

    shape: Floats
    expression: Floats
    residual: float
    relative: float


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """S = mean + shape_modes·α + expression_modes·β over V vertices; y up, in the units of its files (micrometres).

    mean (V, 3); shape_modes (V, 3, S), expression_modes (V, 3, E); landmark_vertices (68,), or None where a file does
    not say; triangles (T, 3) or None; parameter_mean, parameter_std (12 + S + E): 3DDFA's whitening, p̂ = (p − mean)/std
    with p = 12 of pose (row-major 3×4 [sR | t]), α, β; or None.
    """

    mean: Floats
    shape_modes: Floats
    expression_modes: Floats
    landmark_vertices: Ints | None = None
    triangles: Ints | None = None
    parameter_mean: Floats | None = None
    parameter_std: Floats | None = None

    def vertices(self, shape: npt.ArrayLike, expression: npt.ArrayLike) -> Floats:
        """α (≥ S,), β (≥ E,) -> (V, 3). Longer vectors are cut: 300W-LP stores 199 and 29, 3DDFA uses 40 and 10."""
        alpha, beta = (
            self._cut(shape, self.shape_modes, "shape"),
            self._cut(expression, self.expression_modes, "expression"),
        )
        return np.asarray(self.mean + self.shape_modes @ alpha + self.expression_modes @ beta)

    def landmarks(self, shape: npt.ArrayLike, expression: npt.ArrayLike) -> Floats:
        """α, β -> (68, 3)."""
        basis = self.landmark_basis
        alpha, beta = self._cut(shape, basis.shape, "shape"), self._cut(expression, basis.expression, "expression")
        return np.asarray(basis.mean + basis.shape @ alpha + basis.expression @ beta)

    @cached_property
    def landmark_basis(self) -> LandmarkBasis:
        """The model at its 68 landmarks. InputError where the files did not say which vertices these are."""
        if self.landmark_vertices is None:
            raise InputError("this model's files do not say which vertices are the 68 landmarks (no keypoints)")
        at = self.landmark_vertices
        return LandmarkBasis(self.mean[at], self.shape_modes[at], self.expression_modes[at])

    def split_parameters(self, whitened: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Whitened p̂ (…, 62) -> pose (…, 12), α (…, 40), β (…, 10), as they were before whitening."""
        if self.parameter_mean is None or self.parameter_std is None:
            raise InputError("this model's files hold no param_mean and param_std, so nothing whitened can be undone")
        p = np.asarray(whitened, np.float64) * self.parameter_std + self.parameter_mean
        middle = POSE_PARAMETERS + self.shape_modes.shape[2]
        return p[..., :POSE_PARAMETERS], p[..., POSE_PARAMETERS:middle], p[..., middle:]

    @cached_property
    def mirror(self) -> Ints:
        """(V,): the vertex nearest to the mirror image of each in the mean, about its own plane of symmetry x = c."""
        if len(self.mean) == len(FLIP_68):
            return np.array(FLIP_68, np.int32)
        middle = (self.mean[:, 0].min() + self.mean[:, 0].max()) / 2
        image = self.mean * [-1, 1, 1] + [2 * middle, 0, 0]
        return np.asarray(cKDTree(self.mean).query(image)[1], np.int32)

    def mirrored(self, shape: npt.ArrayLike, expression: npt.ArrayLike) -> MirrorFit:
        """The parameters of the mirrored face x -> −x, by least squares on the vertices.

        A scanned basis is not closed under mirroring, so the fit leaves a residual, which is reported; our own model's
        flip is a change of signs and exact. The fit is over α, β, and a shift of the face, which belongs to the pose.
        """
        alpha, beta = (
            self._cut(shape, self.shape_modes, "shape"),
            self._cut(expression, self.expression_modes, "expression"),
        )
        solution = self._coefficient_mirror.matrix @ np.concatenate([alpha, beta]) + self._coefficient_mirror.offset
        fitted = solution[: len(alpha)], solution[len(alpha) :]
        left = self.vertices(alpha, beta)[self.mirror] * [-1, 1, 1] - self.vertices(*fitted)
        residual = _rms(left - left.mean(0))  # a shift belongs to the pose
        own = _rms(self.vertices(alpha, beta) - self.mean)
        return MirrorFit(*fitted, residual, residual / own if own else 0.0)

    @cached_property
    def _coefficient_mirror(self) -> CoefficientMirror:
        return fit_mirror(self.mean, self.shape_modes, self.expression_modes, self.mirror, shifted=True)

    def _cut(self, given: npt.ArrayLike, modes: Floats, name: str) -> Floats:
        vector = np.asarray(given, np.float64).ravel()
        if len(vector) < modes.shape[2]:
            raise InputError(f"this model has {modes.shape[2]} {name} modes, got {len(vector)} coefficients")
        return vector[: modes.shape[2]]


def _rms(distances: Floats) -> float:
    """Root mean square over vertices of (V, 3) differences."""
    return float(np.sqrt((distances**2).sum(1).mean()))


def _points(path: Path, name: str, values: Any) -> Floats:
    flat = np.asarray(values, np.float64).ravel()
    if flat.size == 0 or flat.size % 3 or not np.isfinite(flat).all():
        raise InputError(f"{path}: {name} must hold 3 finite numbers for each vertex, got shape {np.shape(values)}")
    return flat.reshape(-1, 3)


def _modes(path: Path, name: str, values: Any, count: int, limit: int | None = None) -> Floats:
    modes = np.asarray(values, np.float64)
    if modes.ndim != 2 or modes.shape[0] != 3 * count or not np.isfinite(modes).all():
        raise InputError(f"{path}: {name} must hold {3 * count} rows of finite numbers, got shape {modes.shape}")
    return modes[:, :limit].reshape(count, 3, -1)


def _keypoints(path: Path, values: Any, count: int, first: int = 0) -> Ints:
    """68 vertices from 68 indices of vertices or 204 of coordinates; `first`: what the file calls the first vertex."""
    index = np.asarray(values).ravel().astype(np.int64) - first
    if index.size == 3 * 68:
        index = index[::3] // 3
    if index.size != 68 or index.min() < 0 or index.max() >= count:
        raise InputError(
            f"{path}: keypoints must be 68 vertices of {count} (or their 204 coordinates), got {index.size}"
        )
    return index.astype(np.int32)


def load_whitening(path: str | Path, parameters: int) -> tuple[Floats, Floats] | None:
    """Means and deviations (parameters,) of 3DDFA's whitening, or None where there are none.

    path: a pickle of param_mean and param_std, or the folder that holds param_whitening.pkl, or these two as .npy or
    .txt. Raises InputError, naming the file, for anything misshapen or unsafe.
    """
    path = Path(path)
    pickled = path / "param_whitening.pkl" if path.is_dir() else path
    if pickled.exists() or not path.is_dir():
        stored = load_pickle(pickled, _TEXT_LIMIT)
        if not isinstance(stored, dict):
            raise InputError(f"{pickled} must be a dictionary with param_mean and param_std")
        mean, std = (stored.get(f"param_{name}", stored.get(name)) for name in ("mean", "std"))
    else:
        mean, std = (_load_array(path, name) for name in ("param_mean", "param_std"))
        if mean is None or std is None:
            return None
    try:
        mean, std = (np.asarray(values, np.float64).ravel() for values in (mean, std))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the whitening must be numbers ({error})") from error
    if mean.size != parameters or std.size != parameters or not (std > 0).all() or not np.isfinite([mean, std]).all():
        raise InputError(
            f"{path}: the whitening must be {parameters} means and positive deviations, got {mean.size} and {std.size}"
        )
    return mean, std


def load_3ddfa(folder: str | Path, whitening: str | Path | None = None) -> PublishedModel:
    """3DDFA's or 3DDFA-V2's model from the folder that holds its files; whitening: a .pkl elsewhere.

    Raises InputError, naming the file, for anything missing, misshapen or unsafe.
    """
    folder = Path(folder)
    single = sorted(folder.glob("bfm*.pkl"))
    if single:
        path = single[-1]
        found = load_pickle(path)
        missing = {"u", "w_shp", "w_exp", "keypoints"} - set(found) if isinstance(found, dict) else {"a dictionary"}
        if missing:
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}")
        mean, keypoints, triangles = found["u"], found["keypoints"], found.get("tri")
        shape, expression = found["w_shp"], found["w_exp"]
    else:
        path, triangles = folder, None
        names = ("u_shp.npy", "u_exp.npy", "w_shp_sim.npy", "w_exp_sim.npy", "keypoints_sim.npy")
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise InputError(
                f"{folder} has neither bfm*.pkl (3DDFA-V2) nor all of 3DDFA's files: no {', '.join(absent)}"
            )
        u_shape, u_expression, shape, expression, keypoints = (load_npy(folder / name) for name in names)
        mean = _points(folder / "u_shp.npy", "u_shp", u_shape)
        added = _points(folder / "u_exp.npy", "u_exp", u_expression)
        if added.shape != mean.shape:
            raise InputError(f"{folder}: u_shp.npy has {len(mean)} vertices, u_exp.npy {len(added)}")
        mean = mean + added
    points = _points(path, "u", mean)
    shape_modes = _modes(path, "w_shp", shape, len(points), 40)
    expression_modes = _modes(path, "w_exp", expression, len(points), 10)
    at = _keypoints(path, keypoints, len(points))
    corners = None
    if triangles is not None:
        corners = np.asarray(triangles, np.int32)
        corners = corners if corners.shape[1] == 3 else corners.T
    count = POSE_PARAMETERS + shape_modes.shape[2] + expression_modes.shape[2]
    means = load_whitening(folder if whitening is None else whitening, count) or (None, None)
    return PublishedModel(points, shape_modes, expression_modes, at, corners, *means)


def load_bfm(
    shape: str | Path, expression: str | Path | None = None, modes: tuple[int, int] = (40, 10)
) -> PublishedModel:
    """A Basel Face Model from .mat files, with its first `modes` of shape and of expression.

    shape: BFM 2009's 01_MorphableModel.mat, whose modes are scaled by their deviations (shapeEV) so that α has unit
    variance, or 300W-LP's Model_Shape.mat, whose coefficients are those of 300W-LP's Shape_Para and stay as they are.
    expression: 300W-LP's Model_Expression.mat on the same vertices; without it the model has no expression modes.
    """
    path = Path(shape)
    found = load_mat(path)
    if "shapeMU" in found and "shapePC" in found and "shapeEV" in found:
        points = _points(path, "shapeMU", found["shapeMU"])
        shapes = _modes(path, "shapePC", found["shapePC"], len(points), modes[0])
        shapes = shapes * np.asarray(found["shapeEV"], np.float64).ravel()[: modes[0]]
    elif "mu_shape" in found and "w" in found:
        points = _points(path, "mu_shape", found["mu_shape"])
        shapes = _modes(path, "w", found["w"], len(points), modes[0])
    else:
        raise InputError(f"{path} holds neither shapeMU, shapePC, shapeEV nor mu_shape, w (it has: {', '.join(found)})")
    keypoints = found.get("keypoints")
    at = None if keypoints is None else _keypoints(path, keypoints, len(points), first=1)  # MATLAB counts from 1
    corners = found.get("tri", found.get("tl"))
    triangles = None
    if corners is not None:
        triangles = (corners if corners.shape[1] == 3 else corners.T).astype(np.int32) - 1
    expressions = np.zeros((len(points), 3, 0))
    if expression is not None:
        path = Path(expression)
        found = load_mat(path, variables=["mu_exp", "w_exp"])
        points = points + _points(path, "mu_exp", found["mu_exp"])
        expressions = _modes(path, "w_exp", found["w_exp"], len(points), modes[1])
    return PublishedModel(points, shapes, expressions, at, triangles)


def load_landmark_model(folder: str | Path) -> PublishedModel:
    """The 68-landmark rows of 3DDFA's model alone: V = 68, from u_base, w_shp_base, w_exp_base, param_mean, param_std.

    Each is a .txt or .npy of the folder; the last two may be missing.
    """
    folder = Path(folder)
    arrays = {name: _load_array(folder, name) for name in ("u_base", "w_shp_base", "w_exp_base")}
    absent = [name for name in ("u_base", "w_shp_base", "w_exp_base") if arrays[name] is None]
    if absent:
        raise InputError(f"{folder} has no {', '.join(absent)} (.npy or .txt)")
    points = _points(folder, "u_base", arrays["u_base"])
    if len(points) != 68:
        raise InputError(f"{folder}: u_base must hold 68 points (204 numbers), got {3 * len(points)}")
    shape = _modes(folder, "w_shp_base", arrays["w_shp_base"], 68)
    expression = _modes(folder, "w_exp_base", arrays["w_exp_base"], 68)
    means = load_whitening(folder, POSE_PARAMETERS + shape.shape[2] + expression.shape[2]) or (None, None)
    return PublishedModel(points, shape, expression, np.arange(68, dtype=np.int32), None, *means)


def _load_array(folder: Path, name: str) -> Any:
    """A .npy or .txt file of the folder, or None."""
    for ending in (".npy", ".txt"):
        path = folder / (name + ending)
        if path.is_file():
            return load_npy(path, _TEXT_LIMIT) if ending == ".npy" else _load_text(path)
    return None


def _load_text(path: Path) -> Floats:
    check_size(path, _TEXT_LIMIT)
    try:
        return np.loadtxt(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table of numbers ({error})") from error
