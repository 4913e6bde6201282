"""What a face looks like: skin, eyes, lips, brows, beard, hair, clothes, light and what surrounds it.

Masks for all of these are drawn once per process into a bank of small UV-space planes; a sample picks planes, colours
and strengths, and the renderer mixes them per visible pixel. So a look costs a few random numbers, not a texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mtlsearch.faces.head_mesh import Floats, head_mesh
from mtlsearch.faces.head_surface import bump
from mtlsearch.faces.head_surface import ear_offset as ears

Floats32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

TEXELS = 3  # per cell of the mesh's grid
NOISE_TILE = 512

SKIN = np.array(
    [[0.95, 0.80, 0.72], [0.90, 0.71, 0.60], [0.82, 0.61, 0.48], [0.68, 0.47, 0.35], [0.50, 0.33, 0.24],
     [0.35, 0.23, 0.17]]
)  # fmt: skip
HAIR = np.array(
    [[0.06, 0.05, 0.05], [0.11, 0.08, 0.06], [0.20, 0.13, 0.09], [0.33, 0.22, 0.14], [0.45, 0.26, 0.14],
     [0.66, 0.50, 0.31], [0.60, 0.58, 0.56]]
)  # fmt: skip
IRIS = np.array([[0.16, 0.09, 0.05], [0.26, 0.16, 0.09], [0.32, 0.30, 0.20], [0.32, 0.42, 0.50]])


@dataclass(frozen=True)
class Bank:
    """Planes in UV space and where the variants of each kind lie.

    levels: (P, h, w) uint8 at full, half and quarter resolution; boxes: for each level (P, 4) int32, the first and last
    row and column whose bilinear samples can be above 0; kinds: name -> (first plane, variants); volumes (variants of
    "hair", V, 3) float32: how far each hair style stands off the head, model units.
    """

    levels: tuple[Bytes, ...]
    boxes: tuple[npt.NDArray[np.int32], ...]
    kinds: dict[str, tuple[int, int]]
    volumes: Floats32
    noise: Floats32


def _smooth(x: Floats, width: float) -> Floats:
    return 1 / (1 + np.exp(np.clip(-x / width, -40, 40)))


def _cloud(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, ...]) -> Floats:
    """Smooth noise of unit variance over the texture: octaves of the given numbers of cells."""
    total: Floats = np.zeros(shape)
    for n in cells:
        grid = rng.standard_normal((n, n)).astype(np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total / total.std()


HairLine = tuple[tuple[float, float], ...]
_SHORT: HairLine = (
    (0, 0.74), (25, 0.73), (45, 0.67), (57, 0.50), (68, 0.32), (78, 0.14), (84, 0.20), (90, 0.36), (99, 0.36),
    (108, 0.18), (116, -0.12), (128, -0.36), (180, -0.42),
)  # fmt: skip
_LONG: HairLine = (
    (0, 0.76), (22, 0.73), (42, 0.66), (56, 0.48), (68, 0.20), (78, -0.10), (86, -0.60), (94,
    -1.25), (105, -1.5),
    (180, -1.55),
)  # fmt: skip
_FRINGE: HairLine = (
    (0, 0.58), (22, 0.57), (45, 0.52), (57, 0.40), (68, 0.22), (78, -0.05), (86, -0.35), (96,
    -0.62), (130, -0.70),
    (180, -0.72),
)  # fmt: skip
_RECEDING: HairLine = (
    (0, 0.90), (25, 0.98), (45, 0.80), (57, 0.58), (68, 0.38), (78, 0.22), (84, 0.25), (90, 0.36), (99, 0.36),
    (108, 0.18), (116, -0.12), (128, -0.36), (180, -0.42),
)  # fmt: skip
_PARTED: HairLine = (
    (0, 0.70), (18, 0.68), (36, 0.58), (52, 0.42), (64, 0.22), (74, -0.05), (80, -0.45), (88,
    -1.0), (100, -1.3),
    (180, -1.4),
)  # fmt: skip
HAIR_STYLES: tuple[tuple[HairLine, float, float], ...] = (
    (_SHORT, 0.035, 0.0), (_SHORT, 0.085, 0.0), (_RECEDING, 0.025, 0.0), (_LONG, 0.085, 0.22),
    (_FRINGE, 0.080, 0.16), (_PARTED, 0.10, 0.26), (_SHORT, 0.14, 0.0), (_LONG, 0.12, 0.34),
)  # fmt: skip
"""(hairline: angle from the front in degrees -> height, thickness, extra thickness below the ears)."""


def _hair_depth(line: HairLine, angle: Floats, y: Floats) -> Floats:
    """How far a point of the head lies inside the hair, model units; negative outside."""
    at, height = zip(*line)
    return y - np.interp(np.abs(np.degrees(angle)), at, height)


def _planes(x: Floats, y: Floats, angle: Floats) -> dict[str, list[Floats]]:
    """All masks, 0 to 1, over texels at (x, y) of the mean head."""
    rng = np.random.default_rng(2023)
    shape = (x.shape[0], x.shape[1])
    ax = np.abs(x)
    front = _smooth(np.cos(angle) - 0.15, 0.05)
    planes: dict[str, list[Floats]] = {}
    # Cells follow the texture, whose columns are dense in front: the mottling is finest on the face.
    calm = 0.35 + 0.65 * front * _smooth(y + 0.9, 0.1)
    planes["detail"] = [np.clip(0.5 + 0.15 * calm * _cloud(rng, shape, (6, 14, 90)), 0, 1) for _ in range(6)]
    nostril = bump(ax, y, 0.062, -0.178, 0.030, 0.016)
    occlusion = (
        0.40 * bump(ax, y, 0.21, 0.27, 0.07, 0.07)  # inner corner of the eye socket
        + 0.18 * bump(ax, y, 0.31, 0.34, 0.15, 0.045)
        + 0.22 * bump(ax, y, 0.31, 0.19, 0.13, 0.03)
        + 0.85 * nostril
        + 0.25 * bump(ax, y, 0.0, -0.205, 0.12, 0.022)
        + 0.35 * bump(ax, y, 0.165, -0.15, 0.022, 0.055)  # beside the alae
        + 0.22 * bump(ax - 0.3 * (y + 0.35), y, 0.26, -0.28, 0.03, 0.10)  # nasolabial fold
        + 0.35 * bump(ax, y, 0.268, -0.42, 0.025, 0.025)
        + 0.28 * bump(ax, y, 0.0, -0.565, 0.16, 0.028)
        + 0.12 * bump(ax, y, 0.0, -0.26, 0.022, 0.05)
    ) * front
    below_jaw = _smooth(-(y - np.interp(ax, [0, 0.22, 0.4, 0.55, 0.68, 0.8],
                                        [-0.87, -0.85, -0.77, -0.62, -0.30, -0.1])), 0.02)  # fmt: skip
    occlusion += 0.42 * below_jaw * _smooth(y + 1.25, 0.10)
    ear = np.exp(-(((y - 0.12) / 0.13) ** 2) - ((np.abs(np.degrees(angle)) - 96) / 3.5) ** 2)
    planes["occlusion"] = [np.clip(occlusion + 0.5 * ear, 0, 0.95)]

    blush = bump(ax, y, 0.40, -0.03, 0.18, 0.15) + 0.8 * bump(ax, y, 0, -0.09, 0.09, 0.09)
    planes["blush"] = [np.clip((blush + 0.3 * bump(ax, y, 0, -0.75, 0.15, 0.1)) * front, 0, 1)]

    chin = _smooth(-0.56 - 0.10 * np.cos(ax * 6) - y, 0.03) * _smooth(y + 1.05, 0.05)
    moustache = bump(ax, y, 0.10, -0.28, 0.17, 0.035) * _smooth(-0.225 - y, 0.012)
    cheeks = _smooth(ax - 0.36 + 0.30 * (y + 0.45), 0.04) * _smooth(-0.10 - y + 0.25 * (ax - 0.5), 0.04)
    full = np.clip(np.maximum.reduce([chin, moustache, cheeks * _smooth(y + 1.05, 0.05)]), 0, 1)
    goatee = np.clip(np.maximum(chin * bump(ax, y, 0, -0.7, 0.24, 0.4), moustache), 0, 1)
    rough = 0.72 + 0.28 * np.clip(_cloud(rng, shape, (60, 120)), -1.5, 1.5) / 1.5
    lips_free = 1 - _smooth(1 - (ax / 0.245) ** 2 - ((y + 0.42) / 0.085) ** 2, 0.1)
    planes["beard"] = [np.clip(m * rough * lips_free * front, 0, 1) for m in (full, goatee, moustache)]

    lips = []
    for upper, lower, bow in (
        (0.085, 0.085, 0.25),
        (0.075, 0.092, 0.35),
        (0.095, 0.080, 0.2),
        (0.06, 0.07, 0.3),
    ):
        profile = np.clip(1 - (ax / 0.245) ** 2.2, 0, None)
        top = -0.42 + upper * profile**0.8 * (1 - bow * np.exp(-((x / 0.035) ** 2)))
        bottom = -0.42 - lower * profile**0.7
        lips.append(_smooth(np.minimum(top - y, y - bottom), 0.006) * (ax < 0.25) * front)
    planes["lips"] = lips
    gap = np.where(ax < 0.235, 0.0095 * np.clip(1 - (ax / 0.235) ** 2, 0, 1) ** 0.5, -1)
    planes["mouth"] = [_smooth(gap - np.abs(y + 0.4205), 0.0022) * front]
    planes["teeth"] = [_smooth(np.minimum(gap * 0.8 - np.abs(y + 0.417), 0.17 - ax), 0.0025) * front]

    whites, lashes = [], []
    for opening in (0.65, 0.85, 1.0, 1.2):
        ex = ax - 0.3125
        arc = np.clip(1 - np.abs(ex / 0.128) ** 2.2, 0, None)
        top = 0.248 + 0.049 * opening * arc**0.75
        bottom = 0.248 - 0.031 * arc**0.9
        inside = np.minimum(top - y, y - bottom)
        near = _smooth(0.135 - np.abs(ex), 0.006) * front
        whites.append(_smooth(inside, 0.003) * near)
        lid = np.exp(-(((y - top - 0.004) / 0.011) ** 2)) * near
        under = 0.35 * np.exp(-(((y - bottom + 0.003) / 0.007) ** 2)) * near
        crease = 0.30 * np.exp(-(((y - top - 0.042) / 0.009) ** 2)) * near
        lashes.append(np.clip(lid + under + crease, 0, 1))
    planes["white"], planes["lashes"] = whites, lashes

    brows = []
    for arch, thick, tilt in ((0.02, 0.026, 0.0), (0.04, 0.020, 0.02), (0.01, 0.034, -0.03), (0.03,
        0.016, 0.05),
                              (0.025, 0.040, 0.0)):  # fmt: skip
        t = (ax - 0.185) / 0.39
        middle = 0.462 + arch * np.sin(np.clip(t, 0, 1) * 2.4) + 0.028 * np.sin(np.clip(t, 0, 1) * 2.0)
        middle += -0.075 * np.clip(t - 0.62, 0, 1) + tilt * (t - 0.5) * 0.3
        width = thick * np.interp(t, [-0.05, 0.12, 0.55, 1.0, 1.1], [0.7, 1.1, 1.0, 0.45, 0.1])
        along = _smooth(np.minimum(ax - 0.165, 0.59 - ax), 0.014)
        brows.append(np.exp(-(((y - middle) / width) ** 2)) * along * (0.8 + 0.2 * rough) * front)
    planes["brows"] = brows

    planes["hair"], planes["strands"] = [], []
    for line, _, _ in HAIR_STYLES:
        ragged = 0.018 * np.clip(_cloud(rng, shape, (40, 90)), -2, 2)
        inside = _smooth(_hair_depth(line, angle, y) + ragged, 0.014)
        strands = cv2.resize(rng.standard_normal((6, 160)).astype(np.float32), shape[::-1])
        planes["hair"].append(inside)
        planes["strands"].append(inside * np.clip(0.35 + 0.35 * strands, 0, 1))
    planes["scalp"] = [_smooth(_hair_depth(_RECEDING, angle, y), 0.05)]  # the shadow of shaved hair

    planes["cloth"] = [
        _smooth(-1.34 + d - k * np.cos(angle) - y, 0.012) for d, k in ((0, 0.0), (0.0, 0.08), (0.1, 0.02))
    ]

    frames, lenses = [], []
    for rx, ry, power in ((0.165, 0.115, 4.0), (0.15, 0.13, 2.0), (0.175, 0.125, 3.0)):
        d = (np.abs((ax - 0.31) / rx) ** power + np.abs((y - 0.25) / ry) ** power) ** (1 / power)
        rim = np.exp(-(((d - 1) / 0.10) ** 2))
        bridge = _smooth(0.15 - ax, 0.01) * np.exp(-(((y - 0.29) / 0.016) ** 2))
        arm = _smooth(ax - 0.47, 0.01) * np.exp(-(((y - 0.29) / 0.02) ** 2)) * (np.abs(np.degrees(angle)) < 96)
        frames.append(np.clip(np.maximum.reduce([rim * front, bridge * front, arm]), 0, 1))
        lenses.append(_smooth(1 - d, 0.03) * front)
    planes["frame"], planes["lens"] = frames, lenses
    return planes


def _volume(line: HairLine, thickness: float, below: float) -> Floats:
    """(V, 3): how a hair style stands off the mean head."""
    mesh = head_mesh()
    x, y, z = mesh.vertices.T
    depth = np.clip(_hair_depth(line, mesh.angle, y) / 0.16, 0, 1)
    rise = depth * depth * (3 - 2 * depth)
    out = np.stack([x, 0.8 * np.clip(y - 0.3, 0, None), z + 0.12], -1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True) + 1e-9
    hanging = np.clip((0.15 - y) / 0.6, 0, 1) * (1 - np.clip((-1.15 - y) / 0.25, 0, 1))
    off = out * (rise * (thickness + below * hanging))[:, None]
    ear_x, ear_z = ears(mesh.angle, y)  # hair over an ear lies flat on it
    off[:, 0] -= rise * ear_x
    off[:, 2] -= rise * ear_z
    return off


def _boxes(level: Bytes) -> npt.NDArray[np.int32]:
    out = np.zeros((len(level), 4), np.int32)
    for box, plane in zip(out, level):
        rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        box[:] = (rows[0] - 1, rows[-1], columns[0] - 1, columns[-1]) if len(rows) else (1, 0, 1, 0)
    return out


@lru_cache(maxsize=1)
def bank() -> Bank:
    """The bank of masks, drawn once per process."""
    mesh = head_mesh()
    rows, columns = mesh.grid
    height, width = (rows - 1) * TEXELS + 1, (columns - 1) * TEXELS + 1
    v, u = np.meshgrid(np.arange(height) / TEXELS, np.arange(width) / TEXELS, indexing="ij")
    fields = np.stack([mesh.vertices[:, 0], mesh.vertices[:, 1], mesh.angle], -1).reshape(rows, columns, 3)
    texels = cv2.remap(fields.astype(np.float32), u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    x, y, angle = (texels[..., i].astype(np.float64) for i in range(3))
    kinds: dict[str, tuple[int, int]] = {}
    stack: list[Floats] = []
    for name, variants in _planes(x, y, angle).items():
        kinds[name] = (len(stack), len(variants))
        stack.extend(variants)
    full = (np.clip(np.stack(stack), 0, 1) * 255 + 0.5).astype(np.uint8)
    levels = [full]
    for factor in (2, 4):
        size = (width // factor + 1, height // factor + 1)
        levels.append(np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in full]))
    noise = np.random.default_rng(512).standard_normal((NOISE_TILE, NOISE_TILE, 3)).astype(np.float32)
    volumes = np.stack([_volume(*style) for style in HAIR_STYLES]).astype(np.float32)
    return Bank(tuple(levels), tuple(_boxes(level) for level in levels), kinds, volumes, noise)


@dataclass
class Look:
    """Everything the shader needs to know of one face; see `renderer.shade` for the arrays."""

    base: Floats
    layers: Floats
    colours: Floats
    gain: Floats
    eyes: Floats
    light: Floats
    gloss: Floats
    hair: int  # style, or −1


def draw_look(rng: np.random.Generator, pixels_per_unit: float) -> Look:
    """A face's look. pixels_per_unit: the scale of the image, which sets how sharp an iris can be."""
    kinds = bank().kinds
    u = rng.random(64).tolist()
    n = rng.standard_normal(24)
    tone = u[0] * (len(SKIN) - 1)
    k = min(int(tone), len(SKIN) - 2)
    base = (SKIN[k] + (SKIN[k + 1] - SKIN[k]) * (tone - k)) * (1 + 0.03 * n[0:3])
    dark_skin = u[0] > 0.55
    hair_colour = HAIR[int(u[1] * (3 if dark_skin else len(HAIR)))] * (0.85 + 0.3 * u[2])
    layers: list[tuple[float, float]] = []
    colours: list[Floats | list[float]] = []

    def layer(kind: str, choice: float, opacity: float, colour: Floats | list[float]) -> None:
        first, count = kinds[kind]
        layers.append((first + int(choice * count), opacity))
        colours.append(colour)

    if u[3] < 0.35:
        layer("scalp", 0, 0.35 * u[4], hair_colour)
    layer("blush", 0, 0.10 + 0.35 * u[5], base * [1.06, 0.80, 0.78])
    if u[6] < 0.28:  # beard: full, goatee or moustache
        layer("beard", u[7], 0.25 + 0.6 * u[8], hair_colour)
    lip = base * [1.0, 0.66, 0.66] * (0.82 + 0.2 * u[9])
    if u[10] < 0.2:  # lipstick
        lip = np.array([0.62, 0.16, 0.18]) * (0.8 + 0.4 * u[11])
    layer("lips", u[12], 0.45 + 0.45 * u[13], lip)
    layer("mouth", 0, 0.85, base * 0.22 + [0.04, 0.0, 0.0])
    if u[14] < 0.7:
        layer("teeth", 0, 0.8, [0.86, 0.84, 0.80])
    white = len(layers)
    eye = u[15]
    layer("white", eye, 0.92, np.array([0.86, 0.84, 0.82]) * (0.9 + 0.1 * u[16]))
    layer("lashes", eye, 0.55 + 0.35 * u[17], base * 0.18)
    layer("brows", u[18], 0.45 + 0.5 * u[19], hair_colour * 0.8)
    layer("cloth", u[20], 1.0, muted_colour(u[21], u[22], u[23]))
    style = int(u[24] * (len(HAIR_STYLES) + 0.6))
    if style >= len(HAIR_STYLES):
        style = -1  # shaved
    else:
        chosen = (style + 0.5) / len(HAIR_STYLES)
        layer("hair", chosen, 0.97, hair_colour * 0.85)
        layer("strands", chosen, 0.5, hair_colour * (1.2 + 0.3 * u[25]) + 0.015)
    if u[26] < 0.14:
        dark = u[27] < 0.3
        layer("lens", u[28], 0.9 if dark else 0.06, [0.06, 0.06, 0.07] if dark else [0.9, 0.92, 0.95])
        layer("frame", u[28], 0.9, np.array([0.1, 0.09, 0.08]) * (0.5 + 2.5 * u[29]))

    first, count = kinds["detail"]
    gain = np.array([[first + int(u[30] * count), 0.06 + 0.16 * u[31]], [kinds["occlusion"][0], 0.75 + 0.25 * u[32]]])
    iris = IRIS[0 if dark_skin else int(u[33] * len(IRIS))] * (0.8 + 0.5 * u[34])
    softness = max(0.010, 0.9 / pixels_per_unit)
    gaze = np.clip(0.020 * n[3:5], -0.045, 0.045) * [1.0, 0.35]
    eyes = np.array([white, gaze[0], gaze[1], 0.050 + 0.006 * u[35], softness, *iris])
    light, direction = _light(u[36:44], n[5:24])
    gloss = np.array([0.16 * u[44] ** 2 * (0.5 + 0.5 * (1 - u[0])), *direction])
    return Look(base, np.array(layers), np.array(colours, dtype=np.float64), gain, eyes, light, gloss, style)


def _light(u: list[float], n: Floats) -> tuple[Floats, Floats]:
    """Irradiance coefficients (3, 9), and the direction halfway to the key light (for the gloss)."""
    direction = np.array([1.0 * n[0], 0.35 + 0.5 * n[1], 0.7 + abs(n[2])])
    direction /= np.linalg.norm(direction)
    key = 0.12 + 0.60 * u[0]
    level = 0.80 + 0.26 * u[1]  # brightness of a surface that faces the key light
    if u[2] < 0.10:
        level *= 0.65
    warm = 0.05 * n[3]
    tint = np.array([1 + warm, 1 + 0.012 * n[4], 1 - warm])
    light = np.zeros((3, 9))
    light[:, 0] = (1 - 0.62 * key) * level
    light[:, 1:4] = 0.62 * key * level * direction
    light[:, 2] += 0.06 * level  # a little more from above than from below
    light[:, 4:] = 0.035 * n[5:10]
    half = direction + np.array([0.0, 0.0, 1.0])
    return light * tint[:, None], half / np.linalg.norm(half)


def muted_colour(hue: float, saturation: float, value: float) -> Floats:
    """Colours as rooms, streets and clothes have them: mostly little saturation."""
    s = 0.45 * saturation**1.6
    v = 0.12 + 0.78 * value
    rgb = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return v * (1 - s + s * rgb)


@dataclass
class Surroundings:
    """Background (H, H, 3), occluders and camera of one image; see `renderer.paint_shapes` and `finish`."""

    background: Floats32
    behind: Floats
    before: Floats
    blur: float
    noise: float
    offset: npt.NDArray[np.int64]
    table: Bytes
    jpeg: int  # quality, or 0


_RAMP = np.linspace(0, 1, 1024)


def _resized(image: Floats32, size: int) -> Floats32:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def draw_surroundings(rng: np.random.Generator, size: int, skin: Floats) -> Surroundings:
    """Surroundings of a stored image of size×size pixels."""
    u = rng.random(40).tolist()
    colour = [muted_colour(*rng.random(3).tolist()) for _ in range(2)]
    mix = rng.random((2, 2, 1)) * (1.0 if u[0] < 0.7 else 0.1)
    background = (colour[0] * (1 - mix) + colour[1] * mix).astype(np.float32)
    # Octaves of smooth noise, mostly of brightness, built up at 32×32 and enlarged once.
    rough = 0.20 * u[1] ** 1.5
    for n, share, tint in ((4, 1.0, 0.15), (8, 0.7, 0.08), (16, 0.5 * u[2], 0.0), (32, 0.6 * u[3] ** 2, 0.0)):
        octave = rng.standard_normal((n, n, 4), dtype=np.float32)
        background = _resized(background, n)
        background += np.float32(rough * share) * (octave[..., :1] + np.float32(tint) * octave[..., 1:])
    background = _resized(background, size)
    np.clip(background, 0, 1, out=background)

    def shapes(count: int, smallest: float, largest: float, soft: float) -> Floats:
        r = rng.random((count, 11))
        out = np.empty((count, 12))
        for row, q in zip(out, r):
            turn = 3.1416 * q[5]
            axes = (smallest + (largest - smallest) * q[3:5] ** 1.5) * size
            row[:] = (q[0] < 0.6, q[1] * size, q[2] * size, axes[0], axes[1], np.cos(turn), np.sin(turn),
                      0.7 + soft * size * q[9], *muted_colour(q[6], q[7], q[8]),
                      0.25 * (q[10] - 0.5))  # fmt: skip
        return out

    behind = shapes(int(9 * u[4] ** 1.5) if u[5] < 0.75 else 0, 0.03, 0.4, 0.08)
    before = shapes(0, 0, 0, 0)
    if u[6] < 0.10:  # an object
        before = shapes(1, 0.05, 0.22, 0.01)
    elif u[6] < 0.17:  # fingers of a hand, from the lower half
        turn = np.pi * (0.15 + 0.7 * u[7])
        across = np.array([np.sin(turn), -np.cos(turn)])
        at = size * np.array([0.2 + 0.6 * u[8], 0.55 + 0.35 * u[9]])
        width = size * (0.030 + 0.012 * u[10])
        before = np.array(
            [
                (0, *(at + across * width * 1.9 * i), size * (0.16 - 0.02 * abs(i - 1.4)), width,
                np.cos(turn),
                 np.sin(turn), 0.9 + 0.006 * size, *(skin * (0.92 + 0.04 * i)), 0.12)
                for i in range(4)
            ]
        )  # fmt: skip
    blur = (0.25 + 1.0 * u[11] ** 2) * size / 150 if u[12] < 0.5 else 0.0
    noise = 0.030 * u[13] ** 2
    gamma = np.exp(0.28 * (2 * u[14] - 1))
    contrast = 0.85 + 0.3 * u[15]
    tone = np.clip((_RAMP**gamma - 0.5) * contrast + 0.5, 0, 1)
    offset = np.array([int(u[16] * NOISE_TILE), int(u[17] * NOISE_TILE)])
    jpeg = 35 + int(60 * u[19]) if u[18] < 0.5 else 0
    return Surroundings(background, behind, before, blur, noise, offset, (tone * 255 + 0.5).astype(np.uint8), jpeg)
