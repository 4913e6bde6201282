"""Things drawn over the head: locks of hair, glasses, fingers, and flat shapes; and what they leave visible.

Numba, no GIL, no fast-math. Compiled functions call none of another file: Numba's cache would not see that one change.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

OFF = -1e30  # depth where nothing was drawn, as in `renderer`


@nb.njit(cache=True, nogil=True)
def draw_strokes(image, depth, points, radius, taper, colours, shown, light, key, round_):  # type: ignore[no-untyped-def]
    """Draw polylines with a depth test; what covers more than half a pixel goes into the depth.

    points (L, P, 3): pixels, z towards the viewer; radius: pixels at the root, taper: what is left of it at the tip;
    colours (L, 3); shown (L,): share of the key light; light, key as in `renderer.shade`. round_: shade as cylinders
    (fingers, frames); else as hair, by the angle between strand and light (Kajiya & Kay, SIGGRAPH 1989).
    """
    height, width = image.shape[:2]
    lx, ly, lz = key[3], key[4], key[5]
    for k in range(points.shape[0]):
        last = points.shape[1] - 1
        for p in range(last):
            x0, y0, z0 = points[k, p, 0], points[k, p, 1], points[k, p, 2]
            dx, dy, dz = points[k, p + 1, 0] - x0, points[k, p + 1, 1] - y0, points[k, p + 1, 2] - z0
            length = dx * dx + dy * dy
            r0 = radius[k] * (1 - (1 - taper) * p / last)
            r1 = radius[k] * (1 - (1 - taper) * (p + 1) / last)
            reach = max(r0, r1) + 0.5
            left, right = (
                max(0, math.ceil(min(x0, x0 + dx) - reach)),
                min(width - 1, math.floor(max(x0, x0 + dx) + reach)),
            )
            top, bottom = (
                max(0, math.ceil(min(y0, y0 + dy) - reach)),
                min(height - 1, math.floor(max(y0, y0 + dy) + reach)),
            )
            if left > right or top > bottom:
                continue
            norm = math.sqrt(length + dz * dz) + 1e-9
            tx, ty, tz = dx / norm, -dy / norm, dz / norm
            along = tx * lx + ty * ly + tz * lz
            diffuse = 0.25 + 0.75 * math.sqrt(max(1 - along * along, 0.0))
            half = (along + tz) / math.sqrt(2 + 2 * lz + 1e-6)
            gleam = 0.18 * math.sqrt(max(1 - half * half, 0.0)) ** 40 * shown[k]
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    px, py = x - x0, y - y0
                    t = min(max((px * dx + py * dy) / (length + 1e-9), 0.0), 1.0)
                    ox, oy = px - t * dx, py - t * dy
                    away = math.sqrt(ox * ox + oy * oy)
                    r = r0 + t * (r1 - r0)
                    m = min(max(r - away + 0.5, 0.0), 1.0)
                    if r < 0.5:
                        m *= r + 0.5
                    if not round_:
                        m *= 0.85
                    if m <= 0:
                        continue
                    z = z0 + t * dz
                    if round_:
                        z += math.sqrt(max(r * r - away * away, 0.0))
                    if z < depth[y, x]:
                        continue
                    if round_:
                        a = min(away / (r + 1e-6), 1.0) / (away + 1e-9)
                        nx, ny = ox * a, -oy * a
                        nz = math.sqrt(max(1 - nx * nx - ny * ny, 0.0))
                        direct = max((nx * lx + ny * ly + nz * lz + 0.2) / 1.2, 0.0) * shown[k]
                        rim = 0.55 + 0.45 * nz
                    else:
                        nx, ny, nz = 0.0, 0.3, 0.9
                        direct = diffuse * shown[k] * (0.35 + 0.65 * max(lz, 0.0))
                        rim = 1.0
                    for c in range(3):
                        s = light[c]
                        around = max(s[0] + s[1] * nx + s[2] * ny + s[3] * nz, 0.03) * rim
                        value = colours[k, c] * (around + key[c] * direct)
                        if not round_:
                            value += gleam * key[c] * (0.3 + colours[k, c])
                        image[y, x, c] += m * (min(max(value, 0.0), 1.0) - image[y, x, c])
                    if m > 0.5:
                        depth[y, x] = z


@nb.njit(cache=True, nogil=True)
def draw_lenses(image, depth, outlines, colour):  # type: ignore[no-untyped-def]
    """Tinted panes: outlines (L, P, 3) pixels; colour (4,): r, g, b, opacity, and above one half it hides."""
    height, width = image.shape[:2]
    for k in range(outlines.shape[0]):
        outline = outlines[k]
        low_x = low_y = 1e30
        high_x = high_y = -1e30
        cy = cz = 0.0
        for i in range(len(outline)):
            low_x, high_x = min(low_x, outline[i, 0]), max(high_x, outline[i, 0])
            low_y, high_y = min(low_y, outline[i, 1]), max(high_y, outline[i, 1])
            cy += outline[i, 1] / len(outline)
            cz += outline[i, 2] / len(outline)
        top, bottom = max(0, math.ceil(low_y)), min(height - 1, math.floor(high_y))
        left, right = max(0, math.ceil(low_x)), min(width - 1, math.floor(high_x))
        count = len(outline)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                inside = False
                for i in range(count):
                    j = (i + 1) % count
                    yi, yj = outline[i, 1], outline[j, 1]
                    if (yi > y) != (yj > y):
                        cross = outline[i, 0] + (y - yi) / (yj - yi) * (outline[j, 0] - outline[i, 0])
                        if x < cross:
                            inside = not inside
                if inside and depth[y, x] < cz:
                    up = min(max(0.5 - (y - cy) / (bottom - top + 1.0), 0.0), 1.0)
                    for c in range(3):
                        image[y, x, c] += colour[3] * (colour[c] * (0.6 + 0.8 * up) - image[y, x, c])
                    if colour[3] > 0.5:
                        depth[y, x] = cz


@nb.njit(cache=True, nogil=True)
def paint_shapes(image, covered, shapes):  # type: ignore[no-untyped-def]
    """Soft-edged ellipses and boxes over the image.

    shapes (K, 12): kind (0 ellipse, 1 box), centre x, y, half axes a, b, cosine, sine, softness in pixels, r, g, b,
    shading across. covered (H, W) bool is set where a shape hides what lies below.
    """
    height, width = image.shape[:2]
    for k in range(shapes.shape[0]):
        s = shapes[k]
        reach = math.sqrt(s[3] * s[3] + s[4] * s[4]) + 2 * s[7] + 1
        for y in range(max(0, int(s[2] - reach)), min(height, int(s[2] + reach) + 2)):
            for x in range(max(0, int(s[1] - reach)), min(width, int(s[1] + reach) + 2)):
                dx, dy = x - s[1], y - s[2]
                a = (dx * s[5] + dy * s[6]) / s[3]
                b = (dy * s[5] - dx * s[6]) / s[4]
                inside = 1 - (math.sqrt(a * a + b * b) if s[0] == 0 else max(abs(a), abs(b)))
                m = min(max(inside * min(s[3], s[4]) / s[7] + 0.5, 0), 1)
                if m > 0:
                    g = 1 + s[11] * (a - 0.5 * b)
                    for c in range(3):
                        colour = min(max(s[8 + c] * g, 0), 1)
                        image[y, x, c] += (colour - image[y, x, c]) * m
                    if m > 0.5:
                        covered[y, x] = True


@nb.njit(cache=True, nogil=True)
def visible_points(points, depth, covered, tolerance, out):  # type: ignore[no-untyped-def]
    """Points (K, 3) in pixels that lie inside the image, at most `tolerance` behind the surface and under no shape.

    A point on the silhouette is tried against its four neighbouring pixels: one that sees it is enough.
    """
    height, width = depth.shape
    for k in range(points.shape[0]):
        column, row = math.floor(points[k, 0]), math.floor(points[k, 1])
        seen = False
        for y in range(row, row + 2):
            for x in range(column, column + 2):
                if 0 <= y < height and 0 <= x < width and not covered[y, x]:
                    seen |= depth[y, x] > OFF / 2 and depth[y, x] - points[k, 2] < tolerance
        out[k] = seen


@nb.njit(cache=True, nogil=True)
def draw_over(  # type: ignore[no-untyped-def]
    image, depth, light, key, locks, lock_radius, lock_colours, lock_light, panes, pane_colour, wires, wire_radius,
    wire_colours, shapes, fingers, finger_radius, finger_colours, landmarks, tolerance, visible,
):  # fmt: skip
    """Everything that comes over the shaded head, in one call: hair, glasses, an object, a hand; then `visible_points`.

    image (H, W, 3) and depth (H, W) are changed. Everything is in pixels; see the functions above.
    """
    height, width = depth.shape
    draw_strokes(image, depth, locks, lock_radius, 0.2, lock_colours, lock_light, light, key, False)
    if pane_colour[3] > 0:
        draw_lenses(image, depth, panes, pane_colour)
    draw_strokes(image, depth, wires, wire_radius, 1.0, wire_colours, np.ones(len(wires), np.float32), light, key, True)
    covered = np.zeros((height, width), np.bool_)
    paint_shapes(image, covered, shapes)
    if len(fingers) > 0:
        near = np.full((height, width), np.float32(OFF))
        full = np.ones(len(fingers), np.float32)
        draw_strokes(image, near, fingers, finger_radius, 1.0, finger_colours, full, light, key, True)
        for y in range(height):
            for x in range(width):
                covered[y, x] |= near[y, x] > OFF / 2
    visible_points(landmarks, depth, covered, tolerance, visible)
