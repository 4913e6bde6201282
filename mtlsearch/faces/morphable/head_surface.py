"""The mean head as a surface: a point for every angle around the head and every height.

Lengths are in decimetres (100 mm): x right, y up, z towards the viewer, seen by someone who faces the head. y = 0 is
the line of the pupils, z = 0 the plane of the ear canals. The proportions are those of averages of North American
adults in L. G. Farkas, "Anthropometry of the Head and Face", 2nd ed., 1994, rounded: width at the cheekbones 137 mm and
at the angles of the jaw 105, bridge of the nose to chin 121, its length 51 and width 34, mouth 52 wide, inner corners
of the eyes 32 and outer corners 90 apart. The curves between were drawn by hand; no scan or data set went into them.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

from mtlsearch.faces.arrays import Floats

EYE_X, EYE_WIDTH, EYE_Z, EYE_RADIUS = 0.310, 0.148, 0.728, 0.124
"""Centre of the right half's eyeball (x, z), half width between its corners, radius."""
LID_THICKNESS = 0.020
MOUTH_Y, MOUTH_WIDTH = -0.690, 0.255  # the seam of the lips, half its width
LOWER_LIP, UPPER_LIP = -0.700, -0.680  # levels of the rows of the inner edges of the lips
LOWER_LID, UPPER_LID = -0.05, 0.05  # levels of the rows of the lids' edges
JAW_TIP = -1.165
CROWN_BASE, CROWN_HEIGHT = 0.42, 0.76  # the skull closes like an ellipsoid above the one, over the other

_SECTIONS: dict[float, tuple[tuple[float, float], ...]] = {  # height -> (x, z) from the front round to the back
    0.42: ((0, 1.00), (0.2, 0.985), (0.36, 0.90), (0.50, 0.73), (0.60, 0.50), (0.67, 0.24), (0.72, -0.05),
           (0.735, -0.25), (0.69, -0.52), (0.52, -0.77), (0.28, -0.91), (0, -0.96)),
    0.22: ((0, 1.015), (0.2, 1.0), (0.37, 0.915), (0.50, 0.76), (0.585, 0.56), (0.64, 0.33), (0.685, 0.1),
           (0.72, -0.15), (0.71, -0.42), (0.55, -0.72), (0.28, -0.88), (0, -0.94)),
    0.0: ((0, 0.955), (0.2, 0.93), (0.35, 0.87), (0.47, 0.75), (0.56, 0.58), (0.635, 0.36), (0.67, 0.16),
          (0.68, -0.05), (0.69, -0.3), (0.58, -0.6), (0.3, -0.8), (0, -0.88)),
    -0.20: ((0, 0.97), (0.2, 0.96), (0.35, 0.915), (0.48, 0.785), (0.585, 0.60), (0.655, 0.38), (0.68, 0.18),
            (0.68, -0.02), (0.66, -0.25), (0.56, -0.5), (0.3, -0.7), (0, -0.78)),
    -0.45: ((0, 0.99), (0.2, 0.965), (0.33, 0.89), (0.45, 0.735), (0.54, 0.53), (0.60, 0.32), (0.622, 0.15),
            (0.62, -0.02), (0.58, -0.2), (0.48, -0.42), (0.27, -0.57), (0, -0.62)),
    -0.70: ((0, 1.01), (0.14, 0.985), (0.26, 0.915), (0.37, 0.775), (0.46, 0.585), (0.53, 0.36), (0.562, 0.17),
            (0.57, 0), (0.54, -0.15), (0.45, -0.35), (0.25, -0.5), (0, -0.55)),
    -0.90: ((0, 0.995), (0.13, 0.965), (0.24, 0.875), (0.34, 0.72), (0.42, 0.535), (0.49, 0.33), (0.53, 0.14),
            (0.54, 0), (0.52, -0.15), (0.44, -0.34), (0.25, -0.48), (0, -0.53)),
    -1.05: ((0, 1.02), (0.13, 0.985), (0.23, 0.885), (0.31, 0.73), (0.38, 0.54), (0.45, 0.30), (0.49, 0.12),
            (0.51, 0), (0.50, -0.15), (0.43, -0.34), (0.25, -0.48), (0, -0.53)),
    -1.165: ((0, 0.945), (0.13, 0.905), (0.22, 0.815), (0.29, 0.70), (0.36, 0.52), (0.43, 0.30), (0.47, 0.12),
             (0.49, 0), (0.48, -0.15), (0.42, -0.34), (0.25, -0.48), (0, -0.53)),
}  # fmt: skip


def _curve(*points: tuple[float, float]) -> PchipInterpolator:
    xs, ys = zip(*sorted(points))
    return PchipInterpolator(xs, ys)


JAW = _curve(  # height of the jaw's edge by the angle around the head, degrees
    (0, JAW_TIP), (8, -1.157), (16, -1.125), (24, -1.075), (34, -0.995), (46, -0.900), (58, -0.800), (70, -0.685),
    (79, -0.545), (86, -0.42), (93, -0.40), (105, -0.46), (130, -0.56), (180, -0.62),
)  # fmt: skip
_NOSE_RIDGE = _curve(  # z of the midline
    (0.16, 1.0), (0.10, 0.997), (0.04, 1.010), (-0.06, 1.062), (-0.16, 1.132), (-0.26, 1.198), (-0.33, 1.240),
    (-0.37, 1.250), (-0.405, 1.232), (-0.435, 1.175), (-0.46, 1.11), (-0.49, 1.068), (-0.55, 1.03),
)  # fmt: skip
_NOSE_WIDTH = _curve(
    (0.16, 0.16), (0.10, 0.10), (0.03, 0.075), (-0.08, 0.080), (-0.20, 0.095), (-0.32, 0.110), (-0.40, 0.115),
    (-0.46, 0.085), (-0.55, 0.06),
)  # fmt: skip


def bump(x: Floats, y: Floats, cx: float, cy: float, sx: float, sy: float) -> Floats:
    """A Gaussian bump of height 1."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def step(x: Floats, width: float) -> Floats:
    """A smooth step from 0 to 1 around x = 0."""
    return 1 / (1 + np.exp(np.clip(-x / width, -60, 60)))


def _smooth_max(a: Floats, b: Floats, soft: float) -> Floats:
    return soft * np.logaddexp(a / soft, b / soft)


def _section_radius() -> Floats:
    """Distance from the axis by height (from JAW_TIP, every 0.01) and angle (every degree), rounded off."""
    heights, angles = np.arange(JAW_TIP, 0.4201, 0.01), np.arange(0, 181.0)
    rows = []
    for y in sorted(_SECTIONS):
        x, z = np.array(_SECTIONS[y]).T
        at, r = np.degrees(np.arctan2(x, z)), np.hypot(x, z)
        rows.append(np.interp(angles, at, r))
    radius = PchipInterpolator(sorted(_SECTIONS), np.array(rows))(heights)
    return np.asarray(gaussian_filter(radius, (4, 5), mode=("nearest", "mirror")))


_RADII = _section_radius()


def _bare(angle: Floats, y: Floats) -> tuple[Floats, Floats]:
    """x and z of the head without features, (rows, columns)."""
    closing = np.sqrt(1 - np.clip((y - CROWN_BASE) / CROWN_HEIGHT, 0, 1) ** 2)
    rows, columns = (y - JAW_TIP) / 0.01, np.abs(np.degrees(angle))
    radius = map_coordinates(_RADII, [rows, columns], order=1, mode="nearest")
    centre = -0.06 * np.clip((y - CROWN_BASE) / CROWN_HEIGHT, 0, 1)
    return radius * closing * np.sin(angle), radius * closing * np.cos(angle) + centre


def lid_edges(x: Floats) -> tuple[Floats, Floats]:
    """Heights of the lower and the upper lid's edge at x; they meet, but for a little, outside the eye's corners."""
    along = (np.abs(x) - EYE_X) / EYE_WIDTH
    arc = np.clip(1 - np.abs(along) ** 2.1, 0, None)
    line = 0.004 + 0.012 * along.clip(-1.2, 1.2)  # the outer corner lies higher
    peak = np.clip(1 - np.abs(along + 0.12) ** 2.3, 0, None)  # the upper lid is highest a little towards the nose
    return line - 0.004 - 0.046 * arc**0.85, line + 0.004 + 0.058 * (0.5 * arc + 0.5 * peak) ** 0.70 * (arc > 0)


def lip_edges(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Heights of the red of the lips: its lower border, the seam, its upper border."""
    t = np.clip(1 - (x / MOUTH_WIDTH) ** 2, 0, None)
    seam = MOUTH_Y + 0.012 * (1 - t) - 0.006 * np.exp(-((x / 0.05) ** 2)) * t
    bow = 1 + 0.14 * np.exp(-(((np.abs(x) - 0.055) / 0.04) ** 2)) - 0.16 * np.exp(-((x / 0.022) ** 2))
    return seam - 0.105 * t**0.75, seam, seam + 0.082 * t**0.95 * bow


def _heights(level: Floats, x: Floats) -> Floats:
    """Rows follow the features: from levels to heights at x (both (rows, columns))."""
    lower, upper = lid_edges(x)
    inside = (level >= LOWER_LID) & (level <= UPPER_LID)
    t = (level - LOWER_LID) / (UPPER_LID - LOWER_LID)
    between = lower + (upper - lower) * np.clip(t, 0, 1)
    above = upper + (0.30 - upper) * ((level - UPPER_LID) / (0.30 - UPPER_LID))
    below = lower + (-0.26 - lower) * ((level - LOWER_LID) / (-0.26 - LOWER_LID))
    y = np.where(inside, between, level)
    y = np.where((level > UPPER_LID) & (level < 0.30), above, y)
    y = np.where((level < LOWER_LID) & (level > -0.26), below, y)
    _, seam, _ = lip_edges(x)
    return y + (seam - MOUTH_Y) * np.exp(-(((level - MOUTH_Y) / 0.10) ** 2)) * np.exp(-((x / 0.4) ** 4))


def _nose(x: Floats, y: Floats, z: Floats) -> Floats:
    ax = np.abs(x)
    ridge = _NOSE_RIDGE(np.clip(y, -0.55, 0.16))
    width = _NOSE_WIDTH(np.clip(y, -0.55, 0.16))
    reach = step(0.15 - y, 0.03) * step(y + 0.50, 0.008)
    shape = np.exp(-((ax / width) ** 2.2))
    out = z + np.clip(ridge - z, 0, None) * shape * reach
    tip = 1.245 - 0.9 * (((ax / 0.16) ** 2 + ((y + 0.365) / 0.13) ** 2) * 0.16)
    wing = 1.105 - 1.3 * (((ax - 0.110) / 0.075) ** 2 + ((y + 0.400) / 0.082) ** 2) * 0.10
    near = step(y + 0.475, 0.006) * step(0.20 - ax, 0.008)
    out = np.maximum(out, _smooth_max(out, tip, 0.016) * near + out * (1 - near))
    out = np.maximum(out, _smooth_max(out, wing, 0.012) * near + out * (1 - near))
    out -= 0.020 * bump(ax, y, 0.195, -0.41, 0.022, 0.075)  # the groove behind the wings
    return out - 0.05 * bump(ax, y, 0.062, -0.458, 0.032, 0.016)  # nostrils


def _ball(away: Floats, radius: float) -> Floats:
    """z of an eyeball's front at a distance from its centre; it falls off steeply outside."""
    return EYE_Z + np.sqrt(np.clip(radius**2 - away**2, 0, None)) - 6 * np.clip(away - 0.97 * radius, 0, None)


def _eyes(x: Floats, y: Floats, z: Floats, level: Floats) -> Floats:
    ax = np.abs(x)
    z = z - 0.075 * bump(ax, y, 0.185, 0.055, 0.075, 0.10)  # the hollow beside the bridge
    z = z - 0.085 * bump(ax, y, 0.32, 0.03, 0.19, 0.12)  # the socket
    z = z + 0.024 * bump(ax, y, 0.36, 0.20, 0.20, 0.075)  # the ridge of the brow
    away = np.sqrt((ax - EYE_X) ** 2 + (y - 0.004) ** 2)
    ball = _ball(away, EYE_RADIUS)
    lid = _ball(0.92 * away, EYE_RADIUS + LID_THICKNESS)
    lower, upper = lid_edges(x)
    crease = 0.012 * np.exp(-(((y - upper - 0.050) / 0.013) ** 2)) + 0.006 * np.exp(
        -(((y - lower + 0.045) / 0.014) ** 2)
    )
    within = np.clip(1 - ((ax - EYE_X) / (EYE_WIDTH * 1.1)) ** 2, 0, 1)
    covered = _smooth_max(z, lid, 0.014) - crease * within
    open_ = (level > LOWER_LID + 1e-6) & (level < UPPER_LID - 1e-6) & (np.abs(ax - EYE_X) < EYE_WIDTH)
    return np.where(open_, np.minimum(ball, covered), covered)


def _mouth(x: Floats, y: Floats, z: Floats, level: Floats) -> Floats:
    ax = np.abs(x)
    lower, seam, upper = lip_edges(x)
    t = np.clip(1 - (x / MOUTH_WIDTH) ** 2, 0, None)
    z = z + 0.055 * bump(ax, y, 0, -0.66, 0.24, 0.17)  # the teeth behind
    over = np.clip((y - seam) / (upper - seam + 1e-6), 0, 1.5)
    under = np.clip((seam - y) / (seam - lower + 1e-6), 0, 1.5)
    roll = np.where(
        y > seam, 0.042 * np.exp(-(((over - 0.5) / 0.45) ** 2)), 0.062 * np.exp(-(((under - 0.45) / 0.42) ** 2))
    )
    z = z + roll * t**0.7
    z = z - 0.012 * np.exp(-(((y - seam) / 0.014) ** 2)) * t**0.5
    z = z - 0.018 * bump(ax, y, MOUTH_WIDTH + 0.015, MOUTH_Y + 0.008, 0.035, 0.035)  # its corners
    z = z - 0.012 * bump(ax, y, 0, -0.55, 0.022, 0.05)  # philtrum
    z = z + 0.006 * bump(ax, y, 0.042, -0.55, 0.016, 0.06)
    z = z - 0.030 * bump(ax, y, 0, -0.865, 0.15, 0.045)  # the fold under the lower lip
    z = z + 0.030 * bump(ax, y, 0, -1.035, 0.14, 0.085)  # the chin
    inner = (level > LOWER_LIP + 1e-6) & (level < UPPER_LIP - 1e-6)
    return z - 0.05 * np.where(inner, np.clip(1 - np.abs(level - MOUTH_Y) / 0.012, 0, 1), 0) * np.clip(t, 0, 1) ** 0.5


def ear_parts(angle: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """An ear by angle around the head and height: how far inside its outline (1 to 0), its rim, its bowl."""
    degrees = np.abs(np.degrees(angle))
    t = (degrees - 87 - 9 * np.clip(y + 0.4, 0, 0.7)) / 17  # leans back towards the top
    high = (y + 0.09) / np.where(y > -0.09, 0.30, 0.29)
    across = 0.95 - 0.30 * np.clip(-high, 0, 1)  # narrower at the lobe
    rho = np.sqrt(((t - 0.55) / (0.55 * across)) ** 2 + high**2)
    inside = step(0.97 - rho, 0.07)
    rim = np.exp(-(((rho - 0.86) / 0.13) ** 2)) * step(t - 0.1 + 0.3 * np.clip(high, 0, 1), 0.1) * inside
    bowl = np.exp(-(((t - 0.42) / 0.26) ** 2) - ((high + 0.05) / 0.48) ** 2) * inside
    return inside * np.clip(0.12 + t, 0, 1.1), rim, bowl


def ear_offset(angle: Floats, y: Floats) -> tuple[Floats, Floats]:
    """How far the ears stand off the head, in x and in z."""
    flap, rim, bowl = ear_parts(angle, y)
    out = (0.145 * flap + 0.030 * rim - 0.050 * bowl) * step(y + 0.385, 0.02)
    return np.sign(angle) * out, -0.05 * flap


def face_surface(level: Floats, angle: Floats, height: Floats) -> Floats:
    """The head above the jaw's edge.

    level, angle (radians), height: (rows, columns); levels name the rows, heights are theirs before they follow the
    features. Returns (rows, columns, 3).
    """
    x, _ = _bare(angle, height)
    front = step(np.cos(angle) - 0.25, 0.05)
    y = height + (_heights(level, x) - level) * front * step(0.6 - np.abs(x), 0.02)
    x, z = _bare(angle, y)
    shaped = _nose(x, y, _mouth(x, y, _eyes(x, y, z, level), level))
    ax = np.abs(x)
    shaped = shaped + 0.020 * bump(ax, y, 0.43, -0.17, 0.15, 0.10)  # cheekbones
    shaped = shaped + 0.018 * bump(ax, y, 0.27, -0.36, 0.12, 0.13)
    shaped = shaped - 0.016 * bump(ax - 0.25 * (-0.5 - y), y, 0.26, -0.52, 0.028, 0.12)  # from the nose to the mouth
    out, back = ear_offset(angle, y)
    return np.stack([x + out, y, z + (shaped - z) * front + back], -1)


def face_levels() -> Floats:
    """Levels of the rows from the jaw to the forehead: dense at mouth, base of the nose and eyes."""
    return np.r_[
        np.arange(JAW_TIP, -0.90, 0.045), -0.88, -0.855, -0.83, -0.81, -0.79, -0.77, -0.75, -0.73, -0.715,
        LOWER_LIP, -0.697, MOUTH_Y, -0.683, UPPER_LIP, -0.665, -0.645, -0.625, -0.605, -0.58, -0.55, -0.52, -0.495,
        -0.475, -0.46, -0.445, -0.43, -0.41, -0.39, -0.365, -0.34, -0.31, -0.28, -0.25, -0.22, -0.19, -0.16, -0.135,
        -0.11, -0.09, -0.075, -0.062, LOWER_LID, -0.034, -0.017, 0.0, 0.017, 0.034, UPPER_LID, 0.060, 0.074, 0.09,
        0.107, 0.125, 0.15, 0.18, 0.21, 0.24, 0.27, 0.30, 0.34, 0.39, 0.45, 0.51, 0.57,
    ]  # fmt: skip


def crown_levels() -> Floats:
    """Heights of the rows of the skull above the forehead, by equal turns towards the crown."""
    first = np.arcsin((0.57 - CROWN_BASE) / CROWN_HEIGHT)
    return CROWN_BASE + CROWN_HEIGHT * np.sin(np.linspace(first, np.pi / 2, 14)[1:])


def neck_surface(edge: Floats, angles: Floats) -> Floats:
    """Rows (R, columns, 3) from the shoulders up to just under the jaw's edge (columns, 3)."""
    degrees = np.abs(np.degrees(angles))
    top = np.stack(
        [
            0.455 * np.sin(angles),
            _curve((0, -1.33), (40, -1.24), (75, -1.0), (95, -0.85), (130, -0.80), (180, -0.86))(degrees),
            -0.13 + np.where(degrees < 90, 0.50, 0.42) * np.cos(angles),
        ],
        -1,
    )
    drop = _curve((0, -0.07), (15, -0.075), (60, -0.10), (85, -0.10), (100, -0.04), (180, -0.04))(degrees)
    control = edge * [0.94, 1, 0.97] + np.stack([0 * angles, drop, 0 * angles], -1)
    under = [
        (1 - t) ** 2 * edge + 2 * t * (1 - t) * control + t * t * top for t in (0.97, 0.8, 0.62, 0.45, 0.3, 0.18, 0.08)
    ]
    lower = []
    for height, wide, deep, centre in (
        (-3.3, 2.30, 0.95, -0.45), (-2.75, 2.24, 0.85, -0.45), (-2.35, 2.12, 0.74, -0.45), (-2.14, 1.88, 0.64, -0.43),
        (-1.98, 1.52, 0.57, -0.39), (-1.86, 1.12, 0.53, -0.33), (-1.74, 0.74, 0.48, -0.26), (-1.60, 0.56, 0.45, -0.19),
        (-1.46, 0.49, 0.45, -0.15),
    ):  # fmt: skip
        tilt = 0.26 * np.cos(angles) * step(np.array(-1.75 - height), 0.12)  # lower in front
        lower.append(np.stack([wide * np.sin(angles), height - tilt, centre + deep * np.cos(angles)], -1))
    return np.stack(lower + under)
