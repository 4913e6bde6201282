"""The library's own morphable model: S = mean + A_shape·α + A_expression·β.

The shape modes are the leading eigenfunctions of a Gaussian process on the mean head (GPMM: Lüthi, Gerig, Jud, Vetter,
"Gaussian Process Morphable Models", TPAMI 2018, https://arxiv.org/abs/1603.07254) with a squared-exponential kernel of
two scales. The kernel is split into a part that is even and a part that is odd under the mirror x → −x, so every mode
has a definite parity and mirroring a face is a sign vector on its coefficients, exact. Expression modes are local
analytic fields, each even or odd by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.morphable import head_surface as surface
from mtlsearch.faces.morphable.head_mesh import HeadMesh, head_mesh
from mtlsearch.faces.morphable.head_surface import bump, step

SHAPE_MODES = 40
EXPRESSION_MODES = 10
KERNEL_SCALES = ((0.75, 0.038), (0.33, 0.015))
"""(length, standard deviation of the displacement) of the two scales, model units."""
SHUT = 2.1
"""The coefficient of "blink" that closes the eyes."""
ASYMMETRY = 0.05
"""Share of the odd part's variance: real faces are nearly, not exactly, symmetric."""
EXPRESSIONS = (
    "jaw_open", "smile", "pucker", "brow_raise", "frown", "blink", "squint", "mouth_aside",
    "cheek_puff", "jaw_aside",
)  # fmt: skip


def _kernel(a: Floats, b: Floats) -> Floats:
    distance = np.zeros((len(a), len(b)))
    for i in range(3):
        distance += (a[:, None, i] - b[None, :, i]) ** 2
    kernel = np.zeros_like(distance)
    for length, deviation in KERNEL_SCALES:
        kernel += deviation**2 * np.exp(-distance / (2 * length * length))
    return kernel


def _symmetrised(mode: Floats, parity: float, mesh: HeadMesh) -> Floats:
    """The part of a displacement field (V, 3) that is exactly even (+1) or odd (−1) under mirroring."""
    return (mode + parity * mode[mesh.mirror] * [-1, 1, 1]) / 2


def _without_similarity(modes: Floats, mesh: HeadMesh) -> Floats:
    """Displacement fields (V, 3, n) less their part that only moves, turns or scales the 68 landmarks.

    Like the Procrustes alignment of a scanned model: what the pose says, no coefficient says again.
    """
    x, y, z = mesh.vertices.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    fields = np.stack(
        [
            np.stack(field, -1)
            for field in (
                (one, zero, zero), (zero, one, zero), (zero, zero, one),
                (zero, -z, y), (z, zero, -x), (-y, x, zero), (x, y, z),
            )
        ],
        -1,
    )  # fmt: skip
    seen = _at_landmarks(mesh, fields).reshape(-1, 7)
    share = np.linalg.pinv(seen) @ _at_landmarks(mesh, modes).reshape(len(seen), -1)
    return modes - fields @ share


@contextmanager
def _one_thread() -> Iterator[None]:
    """Decompositions in one thread: their rounding depends on the number, and idle BLAS threads that spin on a busy
    machine make these small ones a hundred times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _shape_modes(mesh: HeadMesh) -> tuple[Floats, Floats]:
    """Modes (V, 3, 40) scaled to unit-variance coefficients, parity (40,)."""
    points = mesh.vertices
    # Nyström: eigenfunctions from a sample of one half of the head (the kernel's parity gives the other),
    # twice as dense on the face, where identity shows.
    right = np.flatnonzero((points[:, 0] >= 0) & (points[:, 1] > -1.5))
    weight = np.where((points[right, 2] > 0.3) & (points[right, 1] > -1.2), 2.0, 1.0)
    chosen = np.random.default_rng(68).choice(right, 360, replace=False, p=weight / weight.sum())
    sample = points[chosen]
    flip = np.array([-1.0, 1.0, 1.0])
    direct, mirrored = _kernel(points, sample), _kernel(points, sample * flip)
    # x changes sign under the mirror itself, so its kernel has the other sign.
    kernels = {
        (parity, component): (1.0 if parity > 0 else ASYMMETRY) * (direct + sign * mirrored)
        for parity in (1.0, -1.0)
        for component, sign in ((0, -parity), (1, parity))
    }
    found: list[tuple[float, float, int, Floats]] = []
    for (parity, component), kernel in kernels.items():
        values, vectors = (t.numpy() for t in torch.linalg.eigh(torch.from_numpy(kernel[chosen])))
        for value, vector in zip(values[: -SHAPE_MODES - 1 : -1], vectors.T[::-1]):
            vector = vector * np.sign(vector[np.argmax(np.abs(vector))])  # LAPACK leaves the sign open
            found.append((float(value), parity, component, vector))
            if component == 1:  # y and z share their kernel
                found.append((float(value), parity, 2, vector))
    found.sort(key=lambda item: -item[0])
    modes = np.zeros((SHAPE_MODES, *points.shape))
    for mode, (value, parity, component, vector) in zip(modes, found):
        mode[:, component] = np.einsum("vs,s->v", kernels[parity, min(component, 1)], vector) / np.sqrt(value)
    modes = _without_similarity(np.moveaxis(modes, 0, -1), mesh)
    parities = np.array([parity for _, parity, _, _ in found[:SHAPE_MODES]])
    return np.stack([_symmetrised(modes[..., k], parities[k], mesh) for k in range(SHAPE_MODES)], -1), parities


def _expression_modes(mesh: HeadMesh) -> tuple[Floats, Floats]:
    """Modes (V, 3, 10) in the order of EXPRESSIONS, parity (10,)."""
    x, y, z = mesh.vertices.T
    ax, side, zero = np.abs(x), np.sign(x) * np.minimum(np.abs(x) / 0.1, 1), np.zeros_like(x)
    front = step(np.cos(mesh.angle) - 0.12, 0.05) * step(y + 1.5, 0.10)

    # The jaw turns about the ears. The lips part between the rows of their edges, the cheeks stretch.
    parted = np.clip((surface.UPPER_LIP - mesh.level) / (surface.UPPER_LIP - surface.LOWER_LIP), 0, 1)
    stretched = step(surface.MOUTH_Y - 0.02 - y, 0.10)
    between = step(surface.MOUTH_WIDTH * 0.97 - ax, 0.012)
    corner = np.clip(1 - (ax / surface.MOUTH_WIDTH) ** 2, 0, 1) ** 0.5  # the corners stay half-way
    jaw = between * parted * (0.5 + 0.5 * corner) + (1 - between) * stretched * (0.4 + 0.6 * step(-0.72 - y, 0.05))
    jaw = np.where(mesh.level < -8, 1.0, jaw) * front

    # Lids slide over the eyeball: their edges move, the rows between are folded together.
    opened = np.clip((mesh.level - surface.LOWER_LID) / (surface.UPPER_LID - surface.LOWER_LID), 0, 1)
    along = np.clip(1 - ((ax - surface.EYE_X) / surface.EYE_WIDTH) ** 2, 0, 1)
    lower, upper = surface.lid_edges(x)
    fold = np.where(y > upper, np.exp(-((np.clip(y - upper, 0, None) / 0.065) ** 2)), opened)
    under = np.where(y < lower, np.exp(-((np.clip(lower - y, 0, None) / 0.075) ** 2)), 1 - opened)
    inside = np.clip(1 - np.abs(mesh.level - surface.MOUTH_Y) / 0.0095, 0, 1) * between * corner
    upper_lip = bump(x, y, 0, -0.63, 0.17, 0.07) * (1 - parted) * between
    lower_lip = bump(x, y, 0, -0.75, 0.17, 0.09) * parted * between
    corners = bump(ax, y, surface.MOUTH_WIDTH, surface.MOUTH_Y, 0.13, 0.13)
    cheeks = bump(ax, y, 0.37, -0.25, 0.16, 0.15)
    fields: dict[str, tuple[Floats, Floats, Floats]] = {
        "jaw_open": (zero, -0.075 * z * jaw, 0.075 * (y + 0.1) * jaw - 0.035 * inside),
        "smile": (
            0.055 * side * corners,
            0.045 * corners + 0.020 * cheeks + 0.020 * upper_lip - 0.016 * lower_lip,
            0.020 * cheeks - 0.022 * corners - 0.008 * (upper_lip + lower_lip),
        ),
        "pucker": (-0.15 * x * bump(x, y, 0, -0.69, 0.30, 0.15), zero, 0.04 * bump(x, y, 0, -0.69, 0.17, 0.11)),
        "brow_raise": (zero, 0.034 * bump(ax, y, 0.36, 0.23, 0.26, 0.11), zero),
        "frown": (
            -0.012 * side * bump(ax, y, 0.18, 0.21, 0.13, 0.09),
            -0.028 * bump(ax, y, 0.17, 0.21, 0.15, 0.09),
            0.008 * bump(ax, y, 0.10, 0.21, 0.10, 0.09),
        ),
        "blink": (zero, -(upper - lower - 0.006) / SHUT * fold * (along > 0), 0.006 * fold * along),
        "squint": (zero, 0.012 * under * along - 0.006 * fold * along, 0.006 * under * along),
        "mouth_aside": (0.030 * bump(x, y, 0, -0.69, 0.35, 0.17), zero, zero),
        "cheek_puff": (
            0.022 * side * bump(ax, y, 0.45, -0.48, 0.17, 0.20),
            zero,
            0.03 * bump(ax, y, 0.40, -0.48, 0.17, 0.20),
        ),
        "jaw_aside": (0.022 * z * jaw, zero, zero),
    }
    parity = np.array([-1.0 if name in ("mouth_aside", "jaw_aside") else 1.0 for name in EXPRESSIONS])
    modes = [_symmetrised(np.stack(fields[name], -1) * front[:, None], p, mesh) for name, p in zip(EXPRESSIONS, parity)]
    return np.stack(modes, -1), parity


@dataclass(frozen=True)
class LandmarkBasis:
    """The model at its 68 landmarks, exactly linear: landmarks = mean + shape·α + expression·β.

    mean (68, 3), shape (68, 3, 40), expression (68, 3, 10), model units (y up, z towards the viewer), float64.
    """

    mean: Floats
    shape: Floats
    expression: Floats


@dataclass(frozen=True)
class MorphableModel:
    """The morphable model of the whole head.

    mesh: topology, UV and landmarks; mean (V, 3); shape_modes (V, 3, 40); expression_modes (V, 3, 10); shape_parity
    (40,) and expression_parity (10,): +1 or −1, the factors of the coefficients when a face is mirrored. Coefficients
    have unit variance. Model units (decimetres), the origin at the centroid of the 68 mean landmarks, float64.
    """

    mesh: HeadMesh
    mean: Floats
    shape_modes: Floats
    expression_modes: Floats
    shape_parity: Floats
    expression_parity: Floats

    def vertices(self, shape: Floats, expression: Floats) -> Floats:
        """(40,), (10,) -> (V, 3) in model units."""
        return self.mean + self.shape_modes @ shape + self.expression_modes @ expression

    def landmarks(self, shape: Floats, expression: Floats) -> Floats:
        """(…, 40), (…, 10) -> (…, 68, 3) in model units."""
        basis = self.landmark_basis()
        return (
            basis.mean + np.tensordot(shape, basis.shape, (-1, 2)) + np.tensordot(expression, basis.expression, (-1, 2))
        )

    def landmark_basis(self) -> LandmarkBasis:
        """The 68 rows of the model that predictions are decoded with."""
        return _landmark_basis()


def _at_landmarks(mesh: HeadMesh, field: Floats) -> Floats:
    weights = mesh.landmark_weights.reshape(68, 3, *[1] * (field.ndim - 1))
    return (field[mesh.landmark_vertices] * weights).sum(1)


@lru_cache(maxsize=1)
def morphable_model() -> MorphableModel:
    """The model, built once per process and the same everywhere."""
    mesh = head_mesh()
    with _one_thread():
        shape, shape_parity = _shape_modes(mesh)
    expression, expression_parity = _expression_modes(mesh)
    mean = mesh.vertices - _at_landmarks(mesh, mesh.vertices).mean(0) * [0, 1, 1]
    return MorphableModel(mesh, mean, shape, expression, shape_parity, expression_parity)


@lru_cache(maxsize=1)
def _landmark_basis() -> LandmarkBasis:
    model = morphable_model()
    mesh = model.mesh
    return LandmarkBasis(
        _at_landmarks(mesh, model.mean),
        _at_landmarks(mesh, model.shape_modes),
        _at_landmarks(mesh, model.expression_modes),
    )
