"""From a face's numbers to its picture: the model, the bank of masks, hair and light, handed to the renderer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.geometry import euler_to_matrix, project
from mtlsearch.faces.morphable.head_surface import step
from mtlsearch.faces.morphable.morphable_model import morphable_model
from mtlsearch.faces.rendering import renderer, strokes
from mtlsearch.faces.rendering.appearance import Floats32, draw_look
from mtlsearch.faces.rendering.hair import hair
from mtlsearch.faces.rendering.light_visibility import light_visibility
from mtlsearch.faces.rendering.surroundings import Surroundings, draw_surroundings, noise_tile
from mtlsearch.faces.rendering.uv_masks import mask_bank

_NECK = np.array([0.0, -1.25, -0.15])  # what the head turns about, against the torso; as in `head_surface`
_WIRE_POINTS = 17


@dataclass(frozen=True)
class Scene:
    """The model in the renderer's layout, float32. torso (V,): 0 on the head, 1 on the shoulders."""

    mean: Floats32
    modes: Floats32
    triangles: npt.NDArray[np.int32]
    uv: Floats32
    torso: Floats32
    pivot: Floats
    origin: Floats  # of the model, in the coordinates of `head_surface`
    glasses: tuple[tuple[Floats, Floats], ...]


@lru_cache(maxsize=1)
def scene() -> Scene:
    """Built once per process."""
    model = morphable_model()
    modes = np.concatenate([model.shape_modes, model.expression_modes], -1)
    origin = model.mesh.vertices[0] - model.mean[0]
    below = model.mesh.vertices[:, 1]
    torso = np.where(model.mesh.level < -8, step(-1.58 - below, 0.12), 0.0)
    return Scene(
        model.mean.astype(np.float32).ravel(),
        np.ascontiguousarray(modes.reshape(-1, modes.shape[-1]).T, np.float32),
        model.mesh.triangles,
        model.mesh.uv.astype(np.float32),
        torso.astype(np.float32),
        _NECK - origin,
        origin,
        tuple(_glasses(*style, origin) for style in ((0.265, 0.175, 3.6), (0.235, 0.215, 2.0), (0.275, 0.205, 2.6))),
    )


def _glasses(wide: float, high: float, power: float, origin: Floats) -> tuple[Floats, Floats]:
    """Wires (5, 17, 3) of rims, bridge and temples, and panes (2, 16, 3), on the mean head."""
    turn = np.linspace(0, 2 * np.pi, _WIRE_POINTS)
    c, s = np.cos(turn), np.sin(turn)
    x = 0.325 + wide * np.sign(c) * np.abs(c) ** (2 / power)
    y = -0.035 + high * np.sign(s) * np.abs(s) ** (2 / power)

    def front(x: Floats, y: Floats) -> Floats:
        return np.stack([x, y, 1.055 - 0.42 * x**2 + 0 * y], -1)

    inner, outer = 0.325 - wide, 0.325 + wide
    t = np.linspace(0, 1, _WIRE_POINTS)
    bridge = front(inner * (2 * t - 1), 0.035 + 0.03 * np.sin(np.pi * t))
    hinge = front(np.array([outer * 0.995]), np.array([0.05]))[0]
    temple = hinge + t[:, None] * (np.array([0.715, 0.07, -0.02]) - hinge)
    flip = np.array([-1.0, 1.0, 1.0])
    rim = front(x, y)
    wires = np.stack([rim, rim * flip, bridge, temple, temple * flip]) - origin
    return wires, wires[:2, :-1]


def _wear_glasses(style: int, landmarks: Floats, pose: Floats, inverse_distance: float, size: int) -> list[Floats]:
    """Wires and panes on this face, in pixels: as wide as its temples, at the height and depth of its nose."""
    if style < 0:
        return [np.zeros((0, _WIRE_POINTS, 3)), np.zeros((0, _WIRE_POINTS - 1, 3))]
    mean = morphable_model().landmark_basis().mean
    wide = (landmarks[16, 0] - landmarks[0, 0]) / (mean[16, 0] - mean[0, 0])
    shift = landmarks[28] - mean[28]
    worn = (part * [wide, 1, 1] + shift for part in scene().glasses[style])
    return [project(part, pose, size, inverse_distance) for part in worn]


def _draw_torso(rng: np.random.Generator, angles: Floats, head: Floats) -> Floats:
    """(3, 3): the torso's rotation in the head's coordinates. The shoulders follow the head part of the way."""
    own = angles * [0.12, 0.50, 0.15] + rng.standard_normal(3) * [3.0, 9.0, 3.0]
    return np.asarray(head.T @ euler_to_matrix(own))


def paint(
    pose: Floats,
    inverse_distance: float,
    angles: Floats,
    coefficients: Floats,
    points: Floats,
    landmarks: Floats,
    rng: np.random.Generator,
    size: int,
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The picture (size, size, 3) uint8 of a face, and which landmarks show (68,).

    pose (12,) and inverse_distance: the camera, see `geometry.project`; angles (3,) degrees; coefficients (50,); points
    (68, 3): the landmarks in model units, landmarks (68, 3): in pixels of the picture; rng draws everything else.
    """
    parts, looks, light = scene(), mask_bank(), light_visibility()
    scale = np.float32(np.linalg.norm(pose[:3]))
    head = pose.reshape(3, 4)[:, :3] / scale
    pupils = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0)])[:, :2]
    look = draw_look(rng, scale, pupils, points[62, 1] - points[66, 1], head)
    around = draw_surroundings(rng, size, scale, look.base)
    wires, panes = _wear_glasses(look.glasses, points, pose, inverse_distance, size)
    styles, style = hair(), look.hair

    # About one texel per pixel: a texel is 0.012 model units at full resolution.
    level = 0 if scale > 50 else (1 if scale > 25 else 2)
    background = around.background
    blocks = looks.layers_by_block(level, look.layers[:, 0].astype(np.int64))
    shadows = light.weights(look.key[3:6].astype(np.float64) @ head)
    strokes.paint_shapes(background, np.empty((size, size), np.bool_), around.behind)
    picture, depth, locks, lock_light = renderer.render_head(
        background, parts.mean, parts.modes, coefficients.astype(np.float32),
        styles.volumes[style] if style >= 0 else styles.volumes[0, :0],
        pose.reshape(3, 4), inverse_distance, parts.torso, parts.pivot, _draw_torso(rng, angles, head), parts.triangles,
        parts.uv, looks.levels[level], blocks, look.base, look.layers, look.colours, look.gain, look.eyes, look.light,
        look.key, look.gloss, light.visible, shadows, light.open, styles.vertices[style][look.locks],
        styles.offsets[style][look.locks],
    )  # fmt: skip
    visible = np.empty(len(landmarks), np.bool_)
    strokes.draw_over(
        picture, depth, look.light, look.key, locks, look.lock_radius * scale, look.lock_colours, lock_light,
        panes, look.lens, wires,
        np.full(len(wires), 0.013 * scale, np.float32), np.tile(look.frame, (len(wires), 1)), around.before,
        around.fingers, around.finger_radius, around.finger_colours, landmarks, 0.06 * scale, visible,
    )  # fmt: skip
    return _take(picture, around), visible


def _take(picture: Floats32, around: Surroundings) -> Bytes:
    """What the camera makes of a picture in linear light."""
    if around.blur > 0.2:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), around.blur), np.float32)
    out = np.empty(picture.shape, np.uint8)
    renderer.finish(picture, noise_tile(), around.offset, around.noise, around.tones, around.grey, out)
    if around.jpeg:
        _, encoded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, around.jpeg])
        out = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return out
