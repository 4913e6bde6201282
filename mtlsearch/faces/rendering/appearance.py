"""What a face looks like: the colours of skin, eyes, lips, hair and clothes, its wear, and the light on it.

Colours are written as sRGB, as one picks them, and used in linear light; `renderer.finish` goes back to sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtlsearch.faces.arrays import Floats
from mtlsearch.faces.rendering import hair
from mtlsearch.faces.rendering.uv_masks import mask_bank

Floats32 = npt.NDArray[np.float32]


def linear(srgb: npt.ArrayLike) -> Floats:
    """sRGB in [0, 1] to linear light, by the power 2.2."""
    return np.clip(np.asarray(srgb, np.float64), 0, None) ** 2.2


SKIN = linear(
    [[0.97, 0.84, 0.78], [0.93, 0.76, 0.67], [0.87, 0.67, 0.55], [0.77, 0.56, 0.43], [0.62, 0.43, 0.32],
     [0.46, 0.31, 0.23], [0.33, 0.22, 0.17]]
)  # fmt: skip
"""Skin from very light to very dark; tones are drawn evenly along the line through these."""
HAIR = linear(
    [[0.10, 0.085, 0.08], [0.17, 0.13, 0.11], [0.27, 0.19, 0.14], [0.40, 0.28, 0.19], [0.52, 0.31, 0.19],
     [0.72, 0.57, 0.38], [0.84, 0.74, 0.56]]
)  # fmt: skip
GREY_HAIR = linear([0.62, 0.61, 0.60])
IRIS = linear([[0.20, 0.12, 0.07], [0.32, 0.20, 0.11], [0.38, 0.36, 0.22], [0.36, 0.48, 0.58], [0.42, 0.50, 0.50]])
IRIS_RADIUS = 0.059


@dataclass
class Look:
    """One face's look.

    base to gloss: see `renderer.shade`; hair and glasses: the style, or −1; locks: which of the style's, with their
    colours (L, 3) and radius (L,) in model units; lens (4,): colour and opacity; frame (3,): the glasses' colour.
    """

    base: Floats32
    layers: Floats32
    colours: Floats32
    gain: Floats32
    eyes: Floats32
    light: Floats32
    key: Floats32
    gloss: Floats32
    lock_colours: Floats32
    lock_radius: Floats32
    lens: Floats32
    frame: Floats32
    hair: int
    locks: slice
    glasses: int


def draw_look(rng: np.random.Generator, pixels_per_unit: float, pupils: Floats, opening: float, turn: Floats) -> Look:
    """A face's look.

    pixels_per_unit: the scale of the image, which says how sharp an iris can be; pupils (2, 2): x, y of the middles of
    the two eyes, left of the image first; opening: of the mouth, both in model units; turn (3, 3): the head's rotation.
    """
    kinds = mask_bank().kinds
    u = rng.random(72).tolist()
    n = rng.standard_normal(32)
    masculine, age = u[0] < 0.5, u[1]
    tone = u[2] * (len(SKIN) - 1)
    k = min(int(tone), len(SKIN) - 2)
    base = (SKIN[k] + (SKIN[k + 1] - SKIN[k]) * (tone - k)) * (1 + 0.05 * n[0:3])
    dark_skin = u[2] > 0.55
    hair_colour = HAIR[int(u[3] ** 1.3 * (3 if dark_skin else len(HAIR)))] * (0.75 + 0.5 * u[4])
    if age > 0.72:
        hair_colour = hair_colour + (GREY_HAIR - hair_colour) * min(1.0, 1.8 * u[5] * (age - 0.72) / 0.28)
    layers: list[tuple[float, float, float]] = []
    colours: list[npt.ArrayLike] = []

    def layer(kind: str, choice: float, opacity: float, colour: npt.ArrayLike, gloss: float = 1.0) -> None:
        first, count = kinds[kind]
        layers.append((first + int(choice * count), opacity, gloss))
        colours.append(colour)

    layer("blush", 0, 0.15 + 0.45 * u[6], base * [1.08, 0.72, 0.68])
    layer("tired", 0, 0.35 * u[7] + 0.3 * max(age - 0.6, 0), base * [0.80, 0.68, 0.70])
    if u[8] < 0.15 and not dark_skin:
        layer("freckles", 0, 0.4 + 0.5 * u[9], base * [0.70, 0.50, 0.42])
    style = _draw_style(u[10], u[11], masculine, age)
    if style < 0 or style == 4:
        layer("shaved", 0, 0.5 * u[12], hair_colour * 0.5 + base * 0.3, 1.0)
    if masculine:
        if u[13] < 0.55:
            layer("stubble", 0, 0.10 + 0.35 * u[14], base * 0.35 + hair_colour * 0.3, 0.7)
        if u[15] < 0.30:  # full beard, goatee or moustache
            layer("beard", u[16], 0.55 + 0.4 * u[17], hair_colour * 0.85, 0.3)
    lip = base * np.array([0.96, 0.52, 0.50]) * (0.80 + 0.25 * u[18])
    made_up = not masculine and u[19] < 0.5
    if made_up:
        lip = linear([0.45 + 0.4 * u[20], 0.14 + 0.25 * u[21], 0.18 + 0.22 * u[21]])
        layer("eyeshadow", u[22], 0.25 + 0.45 * u[23], base * linear([0.45 + 0.3 * u[24], 0.38, 0.45 + 0.2 * u[25]]))
    layer("lips", u[26], 0.55 + 0.40 * u[27], lip, 1.8 if made_up else 1.3)
    layer("mouth", 0, 0.93, np.array([0.020, 0.006, 0.005]) + base * 0.02, 0.0)
    if u[28] < 0.9:
        layer(
            "teeth",
            min(opening / 0.30, 0.99),
            0.95 * min(max((opening - 0.030) / 0.05, 0.0), 1.0),
            1.25 * linear([0.97, 0.94, 0.87]),
            1.5,
        )
    layer("caruncle", 0, 0.8, base * [0.95, 0.45, 0.42], 1.0)
    white = len(layers)
    layer("white", 0, 1.0, linear([0.86, 0.82, 0.80]) * (0.62 + 0.25 * u[29] - 0.12 * u[2]), 0.0)
    layer("lashes", 0.9 if made_up else 0.6 * u[30], (0.65 if masculine else 0.8) + 0.15 * u[31], base * 0.03, 0.0)
    brow = u[32] * 0.6 + 0.4 * (u[32] > 0.5) if masculine else u[32]
    layer("brows", min(brow, 0.999), 0.50 + 0.42 * u[33], hair_colour * 0.6 + 0.004, 0.3)
    cloth = linear(muted_colour(u[34], u[35], u[36]))
    layer("cloth", u[37], 1.0, cloth, 0.0)
    layer("folds", 0, 0.55, cloth * 0.45, 0.0)
    if style >= 0:
        chosen = (style + 0.5) / len(hair.STYLES)
        layer("hair", chosen, 0.97, hair_colour * 0.75, 0.6)
        layer("strands", chosen, 0.6, hair_colour * (1.25 + 0.4 * u[38]) + 0.006, 3.5)

    def gain(kind: str, choice: float, strength: float) -> tuple[float, float]:
        first, count = kinds[kind]
        return first + int(choice * count), strength

    gains = [gain("detail", u[39], 0.10 + 0.30 * u[40] ** 1.5), gain("occlusion", 0, 0.75 + 0.25 * u[41])]
    if age > 0.45:
        gains.append(gain("wrinkles", 0, 0.35 * (age - 0.45) / 0.55 * (0.5 + u[42])))

    light, key = _draw_light(u[43:54], n[4:20])
    iris = IRIS[0 if dark_skin else int(u[54] * len(IRIS))] * (0.7 + 0.7 * u[55])
    softness = max(0.008, 0.9 / pixels_per_unit)
    gaze = np.clip(0.022 * n[20:22], -0.05, 0.05) * [1.0, 0.4] + [0.0, 0.014]
    towards = key[3:6] @ turn  # the light, in the head's coordinates
    glint = np.array([0.028 * np.clip(towards[0], -0.7, 0.7), 0.012 + 0.022 * np.clip(towards[1], -0.3, 0.8)])
    eyes = np.concatenate(
        [[white], (pupils + gaze).ravel(), [IRIS_RADIUS * (0.96 + 0.08 * u[56]), softness], iris, glint]
    )

    locks, lock_colours, lock_radius = slice(0, 0), np.zeros((0, 3)), np.zeros(0)
    if style >= 0:
        count = hair.STYLES[style].locks
        start = int(0.3 * u[57] * count)
        locks = slice(start, start + int(0.7 * count))
        spread = rng.random((locks.stop - locks.start, 2))
        lock_colours = hair_colour * (0.65 + 0.55 * spread[:, :1])
        lock_radius = hair.STYLES[style].width * (0.40 + 0.60 * spread[:, 1])
    glasses, lens = -1, np.zeros(4)
    if u[58] < 0.16:
        glasses = int(u[59] * 3)
        if u[60] < 0.25:
            lens = np.array([*linear(np.array([0.12, 0.12, 0.13]) + 0.1 * u[61]), 0.93])
        else:
            lens = np.array([0.8, 0.85, 0.9, 0.10 * u[61]])
    frame = linear([0.10, 0.09, 0.09] if u[62] < 0.6 else muted_colour(u[63], 1.0, 0.2 + 0.5 * u[64]))
    oily = 0.05 + 0.22 * u[65] ** 2
    arrays = {
        "base": base, "layers": layers, "colours": colours, "gain": gains, "eyes": eyes, "light": light, "key": key,
        "gloss": (oily, 8 + 16 * u[66]), "lock_colours": lock_colours, "lock_radius": lock_radius, "lens": lens,
        "frame": frame,
    }  # fmt: skip
    typed = {name: np.array(array, np.float32) for name, array in arrays.items()}
    return Look(hair=style, locks=locks, glasses=glasses, **typed)


def _draw_style(which: float, bald: float, masculine: bool, age: float) -> int:
    if masculine:
        if bald < 0.08 + 0.10 * (age > 0.6):
            return -1
        return hair.SHORT_STYLES[int(which * len(hair.SHORT_STYLES))]
    options = (5, 6, 6, 7, 7, 7, 8, 8, 9, 9, 1, 10)
    return options[int(which * len(options))]


def _draw_light(u: list[float], n: Floats) -> tuple[Floats, Floats]:
    """Irradiance of the surroundings (3, 9), and the key light (7,): colour, direction, softness of the skin."""
    azimuth = np.clip(0.75 * n[0], -2.2, 2.2)
    elevation = np.clip(0.45 + 0.40 * n[1], -0.4, 1.25)
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    share = 0.15 + 0.70 * u[0] ** 0.8  # of the key light
    level = np.exp(0.18 * n[2]) * (0.92 if u[1] > 0.08 else 0.35)
    warm, cool = 0.10 * n[3], 0.06 * n[4]
    tint = np.array([1 + warm, 1 + 0.02 * n[5], 1 - warm])
    fill = np.array([1 - cool, 1.0, 1 + cool])
    key = level * 1.15 * share * tint
    around = level * (1.05 - 0.85 * share)
    light = np.zeros((3, 9))
    light[:, 0] = around
    light[:, 1] = around * 0.22 * n[6]
    light[:, 2] = around * (0.22 + 0.10 * n[7])
    light[:, 3] = around * (0.10 + 0.08 * n[8])
    light[:, 4:] = around * 0.04 * n[9:14]
    return light * fill[:, None], np.concatenate([key, direction, [0.15 + 0.25 * u[2]]])


def muted_colour(hue: float, saturation: float, value: float) -> Floats:
    """sRGB colours as rooms, streets and clothes have them: mostly of little saturation."""
    s = 0.5 * saturation**1.8
    v = 0.08 + 0.86 * value
    rgb = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return v * (1 - s + s * rgb)
