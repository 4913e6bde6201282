"""The synthetic face set: images with exact landmarks, angles, poses and model parameters, made from a recipe.

Sample i of a split depends on (seed, split, i) alone, so any number of threads or processes renders the same bytes.

The camera is a perspective one. The pose parameters, which weak-perspective systems such as Kim 2023 regress, are its
first-order approximation at the centroid of the landmarks (see `geometry.project`): landmarks decoded from the true
parameters alone have an NME of 0.6 % on average, which is the least that such a system can reach here.

The stored image carries a margin around its nominal crop, so that rotations and shifts of augmentation bring no black
corners in: the nominal crop is the centre S×S of a square of ceil(S·margin) pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.geometry import box_of_landmarks, pose_matrix, project, stored_side
from mtlsearch.faces.morphable.morphable_model import EXPRESSION_MODES, EXPRESSIONS, SHAPE_MODES, SHUT, morphable_model
from mtlsearch.faces.rendering.head_picture import paint

GENERATOR_VERSION = 2
"""Raised whenever the same recipe would give other images or labels."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SyntheticRecipe:
    """What is rendered. Everything that changes a byte of the result is a field here.

    seed; train, val, test: images per split; image_size: side S of the nominal crop in pixels; margin: side of the
    stored image over S; yaw_uniform: share of samples with yaw uniform in ±max_yaw, the rest is normal with yaw_std;
    pitch_std, roll_std: normal, cut at ±max_pitch_roll (all in degrees); jitter: shift of the crop as a share of its
    side and spread of the log of its size (normal, cut at twice); min_distance, max_distance: of the camera from the
    face, log-uniform, in model units of 100 mm (the focal length is distance × scale: 4 to 20 times the side of a crop
    by default, as if from a portrait at arm's length to a long lens); generator_version: see GENERATOR_VERSION.
    """

    seed: int = 0
    train: int = 3000
    val: int = 400
    test: int = 600
    image_size: int = 64
    margin: float = 1.25
    yaw_uniform: float = 0.8
    max_yaw: float = 90.0
    yaw_std: float = 25.0
    pitch_std: float = 15.0
    roll_std: float = 15.0
    max_pitch_roll: float = 60.0
    jitter: float = 0.02
    min_distance: float = 8.0
    max_distance: float = 40.0
    generator_version: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        for name, low, high in (
            ("seed", 0, 2**63 - 1), ("train", 0, 10**8), ("val", 0, 10**8), ("test", 0, 10**8),
            ("image_size", 16, 1024), ("margin", 1.0, 2.0), ("yaw_uniform", 0.0, 1.0), ("max_yaw", 0.0, 90.0),
            ("yaw_std", 0.0, 90.0), ("pitch_std", 0.0, 60.0), ("roll_std", 0.0, 60.0),
            ("max_pitch_roll", 0.0, 85.0),
            ("jitter", 0.0, 0.2), ("min_distance", 4.0, 1e6), ("max_distance", 4.0, 1e6),
        ):  # fmt: skip
            value = getattr(self, name)
            whole = isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InputError(f"{name} of a face recipe must be {'a whole' if whole else 'a'} number, got {value!r}")
            if not low <= value <= high:
                raise InputError(f"{name} of a face recipe must lie in [{low}, {high}], got {value!r}")
            if not whole:  # 90 and 90.0 are the same recipe
                object.__setattr__(self, name, float(value))
        if self.min_distance > self.max_distance:
            raise InputError(
                f"min_distance of a face recipe must be at most max_distance, "
                f"got {self.min_distance} and {self.max_distance}"
            )
        if self.generator_version != GENERATOR_VERSION:
            raise InputError(
                f"this recipe asks for version {self.generator_version} of the face generator; "
                f"installed is version "
                f"{GENERATOR_VERSION}. Install the mtlsearch that wrote the recipe, or drop "
                f"generator_version from it."
            )

    @property
    def stored_size(self) -> int:
        """Side of the stored image."""
        return stored_side(self.image_size, self.margin)

    def count(self, split: str) -> int:
        """Images in a split."""
        if split not in SPLITS:
            raise InputError(unknown_name("split", split, SPLITS))
        return int(getattr(self, split))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for YAML, JSON and MLflow."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SyntheticRecipe:
        """The recipe of a mapping; InputError for unknown fields."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise InputError(unknown_name("field of a face recipe", name, known))
        return cls(**fields)

    def digest(self) -> str:
        """16 hex digits that name the recipe."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


LABELS: dict[str, tuple[tuple[int, ...], str]] = {
    "landmarks": ((68, 3), "float32"),
    "angles": ((3,), "float32"),
    "pose": ((12,), "float32"),
    "inverse_distance": ((), "float32"),
    "shape": ((SHAPE_MODES,), "float32"),
    "expression": ((EXPRESSION_MODES,), "float32"),
    "visible": ((68,), "bool"),
}
"""Name -> shape per sample and dtype of the stored labels; see `Sample`."""


@dataclass(frozen=True)
class Sample:
    """One face.

    image (H, H, 3) uint8 RGB, H = stored size; landmarks (68, 3) float64: x right, y down, in pixels of this image with
    the origin at the centre of pixel (0, 0), z in the same scale towards the viewer; angles (3,) degrees: pitch, yaw,
    roll; pose (12,): row-major 3×4 [sR | t] from model units to y-up pixels (image y = H − 1 − y_up; t_z = 0);
    inverse_distance: of the camera, per model unit, see `geometry.project`, which takes the model's points to exactly
    these landmarks; shape (40,), expression (10,): coefficients; visible (68,) bool: inside the image and not hidden.
    """

    image: Bytes
    landmarks: Floats
    angles: Floats
    pose: Floats
    inverse_distance: np.float64
    shape: Floats
    expression: Floats
    visible: npt.NDArray[np.bool_]


def draw_angles(rng: np.random.Generator, recipe: SyntheticRecipe) -> Floats:
    """(3,) degrees: pitch, yaw, roll from the recipe's distribution."""
    limit = recipe.max_pitch_roll
    pitch, roll = np.clip(rng.standard_normal(2) * [recipe.pitch_std, recipe.roll_std], -limit, limit)
    uniform, spread = rng.uniform(-recipe.max_yaw, recipe.max_yaw), rng.normal(0, recipe.yaw_std)
    yaw = uniform if rng.random() < recipe.yaw_uniform else float(np.clip(spread, -recipe.max_yaw, recipe.max_yaw))
    return np.array([pitch, yaw, roll])


_ONE_SIDED = np.array([name in ("jaw_open", "smile", "blink") for name in EXPRESSIONS])
_WIDEST = np.where([name == "blink" for name in EXPRESSIONS], SHUT, np.inf)


def draw_expression(rng: np.random.Generator) -> Floats:
    """(10,) coefficients; three faces in ten are near rest.

    Lips part and lids close in one direction only, and often not at all: those coefficients are √2·max(0, N(0, 1)), of
    second moment 1 like the others.
    """
    values = rng.standard_normal(EXPRESSION_MODES)
    values = np.where(_ONE_SIDED, math.sqrt(2) * np.clip(values, 0, None), values)
    return np.minimum(values, _WIDEST) * (0.25 if rng.random() < 0.3 else 1.0)


def render_sample(recipe: SyntheticRecipe, split: str, index: int) -> Sample:
    """Sample `index` of a split. The same arguments give the same bytes."""
    if not 0 <= index < recipe.count(split):
        raise InputError(f"split {split!r} of this recipe has {recipe.count(split)} images, asked for index {index}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([recipe.seed, SPLITS.index(split), index])))
    angles = draw_angles(rng, recipe)
    shape = rng.standard_normal(SHAPE_MODES)
    expression = draw_expression(rng)
    low, high = math.log(recipe.min_distance), math.log(recipe.max_distance)
    camera = math.exp(-rng.uniform(low, high))
    return render_face(angles, shape, expression, rng, recipe.image_size, recipe.stored_size, recipe.jitter, camera)


def render_face(
    angles: Floats,
    shape: Floats,
    expression: Floats,
    rng: np.random.Generator,
    image_size: int,
    stored_size: int,
    jitter: float = 0.0,
    inverse_distance: float = 0.0,
) -> Sample:
    """A face of given angles (3,) degrees, shape (40,), expression (10,) and camera; rng draws its crop and looks."""
    points = morphable_model().landmarks(shape, expression)
    turned = pose_matrix(angles, np.array(1.0), np.zeros(3))
    box = box_of_landmarks(project(points, turned, 1, inverse_distance))
    side = float(max(box[2] - box[0], box[3] - box[1])) * math.sqrt(2)
    shift = np.clip(rng.standard_normal(2), -2, 2) * jitter * image_size
    spread = np.clip(rng.standard_normal(), -2, 2)
    scale = image_size / side * math.exp(-spread * jitter)
    centre = (stored_size - 1) / 2
    # The box's centre goes to the image's centre. `project` with height 1 gave y down = −y up.
    x, y = scale * (box[0] + box[2]) / 2, scale * (box[1] + box[3]) / 2
    pose = turned * scale
    pose[[3, 7]] = centre + shift[0] - x, centre + shift[1] + y
    landmarks = project(points, pose, stored_size, inverse_distance)
    coefficients = np.concatenate([shape, expression])
    image, visible = paint(pose, inverse_distance, angles, coefficients, points, landmarks, rng, stored_size)
    return Sample(image, landmarks, angles, pose, np.float64(inverse_distance), shape, expression, visible)
