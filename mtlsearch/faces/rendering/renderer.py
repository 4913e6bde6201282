"""A software renderer for the head: deform, project, z-buffer, shade, composite, finish. Numba, no GIL.

No fast-math: across machines geometry agrees to rounding, and pixels to about a grey level. Rasterising and shading are
separate passes: hidden surface is never shaded. Image arrays are float32 in [0, 1], linear light, until `finish`.

Compiled functions call none of another file: Numba's cache would not see that one change.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

OFF = -1e30  # depth where nothing was drawn


@nb.njit(cache=True, nogil=True)
def deform(mean, modes, coefficients, out):  # type: ignore[no-untyped-def]
    """out (V·3,) = mean + Σ modes[k]·coefficients[k]; float32, summed in the order of the modes."""
    for i in range(out.shape[0]):  # spelled out: an assignment of whole arrays compiles for seconds
        out[i] = mean[i]
    for k in range(modes.shape[0]):
        c = coefficients[k]
        if c != 0:
            mode = modes[k]
            for i in range(out.shape[0]):
                out[i] += mode[i] * c


@nb.njit(cache=True, nogil=True)
def to_pixels(vertices, pose, inverse_distance, height, out):  # type: ignore[no-untyped-def]
    """(V, 3) model units -> (V, 3) pixels: x, y down, z towards the viewer.

    pose (3, 4): [sR | t], y up. The camera is 1/inverse_distance model units in front of the origin and looks at it: a
    point at depth Z = (R·v)_z is enlarged by w = 1/(1 − Z·inverse_distance), about (t_x, t_y). z is enlarged too, which
    keeps planes planes: interpolating z over a triangle in the image is exact.
    """
    scale = math.sqrt(pose[2, 0] ** 2 + pose[2, 1] ** 2 + pose[2, 2] ** 2)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z
        w = 1 / (1 - depth * inverse_distance / scale)
        out[i, 0] = (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z) * w + pose[0, 3]
        out[i, 1] = (height - 1) - ((pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z) * w + pose[1, 3])
        out[i, 2] = depth * w + pose[2, 3]


@nb.njit(cache=True, nogil=True)
def twist(points, share, pivot, turn):  # type: ignore[no-untyped-def]
    """Turn the torso against the head: points += share · (turn − I)·(point − pivot); share (V,), turn (3, 3)."""
    for i in range(points.shape[0]):
        if share[i] > 0:
            x, y, z = points[i, 0] - pivot[0], points[i, 1] - pivot[1], points[i, 2] - pivot[2]
            for c in range(3):
                moved = turn[c, 0] * x + turn[c, 1] * y + turn[c, 2] * z
                points[i, c] += share[i] * (moved + pivot[c] - points[i, c])


@nb.njit(cache=True, nogil=True)
def vertex_normals(points, triangles, out):  # type: ignore[no-untyped-def]
    """Area-weighted unit normals in viewer coordinates (x right, y up, z towards the viewer) of pixels (y down)."""
    out[:] = 0
    for t in range(triangles.shape[0]):
        p, q, r = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = points[q, 0] - points[p, 0], points[p, 1] - points[q, 1], points[q, 2] - points[p, 2]
        bx, by, bz = points[r, 0] - points[p, 0], points[p, 1] - points[r, 1], points[r, 2] - points[p, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for k in (p, q, r):
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for i in range(out.shape[0]):
        n = 1 / math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2 + 1e-20)
        out[i, 0] *= n
        out[i, 1] *= n
        out[i, 2] *= n


@nb.njit(cache=True, nogil=True)
def rasterise(points, triangles, depth, owner, bary):  # type: ignore[no-untyped-def]
    """Nearest front-facing triangle of every pixel centre: depth (H, W), owner (H, W) or −1, bary (H, W, 2)."""
    height, width = depth.shape
    depth[:] = OFF
    owner[:] = -1
    for t in range(triangles.shape[0]):
        p, q, r = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0 = points[p, 0], points[p, 1]
        x1, y1 = points[q, 0], points[q, 1]
        x2, y2 = points[r, 0], points[r, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= -1e-12:  # y is down: a front face turns clockwise
            continue
        left, right = max(0, math.ceil(min(x0, x1, x2))), min(width - 1, math.floor(max(x0, x1, x2)))
        if left > right:
            continue
        top, bottom = max(0, math.ceil(min(y0, y1, y2))), min(height - 1, math.floor(max(y0, y1, y2)))
        if top > bottom:
            continue
        z0, dz1, dz2 = points[p, 2], points[q, 2] - points[p, 2], points[r, 2] - points[p, 2]
        inverse = 1 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
                if w1 < 0 or w2 < 0 or w1 + w2 > 1:
                    continue
                z = z0 + w1 * dz1 + w2 * dz2
                if z > depth[y, x]:
                    depth[y, x] = z
                    owner[y, x] = t
                    bary[y, x, 0] = w1
                    bary[y, x, 1] = w2


@nb.njit(cache=True, nogil=True, inline="always")
def _tap(plane, row, column, fr, fc):  # type: ignore[no-untyped-def]
    above = plane[row, column] * (1 - fc) + plane[row, column + 1] * fc
    below = plane[row + 1, column] * (1 - fc) + plane[row + 1, column + 1] * fc
    return (above * (1 - fr) + below * fr) * np.float32(1 / 255)


@nb.njit(cache=True, nogil=True, inline="always")
def _ramp(x):  # type: ignore[no-untyped-def]
    return min(max(x, np.float32(0)), np.float32(1))


@nb.njit(cache=True, nogil=True)
def shade(  # type: ignore[no-untyped-def]
    image, owner, bary, triangles, points, normals, lit, open_, uv, planes, blocks, base, layers, colours, gain, eyes,
    light, key, gloss,
):  # fmt: skip
    """Shade the pixels that `owner` covers. All but owner and triangles is float32.

    points (V, 3): the head in model units, normals (V, 3) in the viewer's; lit (V,): share of the key light that is not
    shadowed, open_ (V,): share of the surroundings that a vertex sees. planes (P, h, w) uint8: masks in UV space;
    blocks (h/8, w/8) uint32: the layers that are above 0 in 8×8 texels, a bit each. base (3,): skin. layers (L, 3):
    plane, opacity, gloss; colours (L, 3): the layers are mixed over the skin in order. gain (K, 2): plane, strength:
    first multiplicative detail around 0.5, then planes that darken. eyes: layer of the white, (x, y) of each pupil,
    radius, softness, colour r, g, b, catch-light x, y. light (3, 9): second-order irradiance of the surroundings; key
    (7,): the key light's colour, direction, softness of skin. gloss: strength, exponent.
    """
    rows, columns = planes.shape[1] - 1, planes.shape[2] - 1
    white, n_layers = int(eyes[0]), layers.shape[0]
    one, half = np.float32(1), np.float32(0.5)
    lx, ly, lz = key[3], key[4], key[5]
    hx, hy, hz = lx, ly, lz + one
    h = one / math.sqrt(hx * hx + hy * hy + hz * hz)
    hx, hy, hz = hx * h, hy * h, hz * h
    wrap_r, wrap_g, wrap_b = key[6], key[6] * np.float32(0.45), key[6] * np.float32(0.3)
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            t = owner[y, x]
            if t < 0:
                continue
            p, q, r = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            w1, w2 = bary[y, x, 0], bary[y, x, 1]
            w0 = one - w1 - w2
            u = (w0 * uv[p, 0] + w1 * uv[q, 0] + w2 * uv[r, 0]) * columns
            v = (w0 * uv[p, 1] + w1 * uv[q, 1] + w2 * uv[r, 1]) * rows
            column, row = min(int(u), columns - 1), min(int(v), rows - 1)
            fc, fr = np.float32(u - column), np.float32(v - row)
            c0, c1, c2 = base[0], base[1], base[2]
            shine, glint, soft = one, np.float32(0), one
            present = blocks[row >> 3, column >> 3]
            for k in range(n_layers):
                if not (present >> k) & 1:
                    continue
                m = _tap(planes[int(layers[k, 0])], row, column, fr, fc) * layers[k, 1]
                if m <= 0:
                    continue
                c0 += (colours[k, 0] - c0) * m
                c1 += (colours[k, 1] - c1) * m
                c2 += (colours[k, 2] - c2) * m
                shine += (layers[k, 2] - shine) * m
                if k == white:  # iris, pupil and catch-light lie on the eyeball, where the lids let them be seen
                    ex = w0 * points[p, 0] + w1 * points[q, 0] + w2 * points[r, 0]
                    ey = w0 * points[p, 1] + w1 * points[q, 1] + w2 * points[r, 1]
                    side = 0 if ex < 0 else 1
                    dx, dy = ex - eyes[1 + 2 * side], ey - eyes[2 + 2 * side]
                    away = math.sqrt(dx * dx + dy * dy)
                    iris = _ramp((eyes[5] - away) / eyes[6] + half) * m
                    ring = _ramp((away - np.float32(0.80) * eyes[5]) / (np.float32(0.2) * eyes[5] + eyes[6])) * half
                    inner = one + np.float32(0.35) * _ramp(one - away / eyes[5]) - ring
                    c0 += (eyes[7] * inner - c0) * iris
                    c1 += (eyes[8] * inner - c1) * iris
                    c2 += (eyes[9] * inner - c2) * iris
                    pupil = one - _ramp((np.float32(0.40) * eyes[5] - away) / eyes[6] + half) * iris * np.float32(0.93)
                    c0, c1, c2 = c0 * pupil, c1 * pupil, c2 * pupil
                    gx, gy = dx - eyes[10], dy - eyes[11]
                    spot = np.float32(0.010) + np.float32(0.45) * eyes[6]
                    glint = m * math.exp(-(gx * gx + gy * gy) / (2 * spot * spot))
                    soft -= m
            nx = w0 * normals[p, 0] + w1 * normals[q, 0] + w2 * normals[r, 0]
            ny = w0 * normals[p, 1] + w1 * normals[q, 1] + w2 * normals[r, 1]
            nz = w0 * normals[p, 2] + w1 * normals[q, 2] + w2 * normals[r, 2]
            n = one / math.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
            nx, ny, nz = nx * n, ny * n, nz * n
            g = one + gain[0, 1] * (_tap(planes[int(gain[0, 0])], row, column, fr, fc) - half)
            for k in range(1, gain.shape[0]):
                g *= one - gain[k, 1] * _tap(planes[int(gain[k, 0])], row, column, fr, fc)
            shown = w0 * lit[p] + w1 * lit[q] + w2 * lit[r]
            around = (w0 * open_[p] + w1 * open_[q] + w2 * open_[r]) * g
            facing = nx * lx + ny * ly + nz * lz
            direct = shown * g
            d0 = direct * _ramp((facing + wrap_r * soft) / (one + wrap_r * soft))
            d1 = direct * _ramp((facing + wrap_g * soft) / (one + wrap_g * soft))
            d2 = direct * _ramp((facing + wrap_b * soft) / (one + wrap_b * soft))
            rim = one - _ramp(nz)
            mirrored = nx * hx + ny * hy + nz * hz
            specular = np.float32(0)
            if mirrored > np.float32(0.6):  # below, its power is under a grey level
                specular = gloss[0] * shine * shown * mirrored ** gloss[1] * (one + 2 * rim * rim * rim)
            sheen = gloss[0] * shine * np.float32(0.5) * around * rim * rim * rim * rim
            for channel in range(3):
                s = light[channel]
                e = s[0] + s[1] * nx + s[2] * ny + s[3] * nz + s[4] * nx * ny + s[5] * nx * nz + s[6] * ny * nz
                e += s[7] * (nx * nx - ny * ny) + s[8] * (3 * nz * nz - one)
                e = max(e, np.float32(0.03)) * around
                e += key[channel] * (d0 if channel == 0 else (d1 if channel == 1 else d2))
                value = (c0 if channel == 0 else (c1 if channel == 1 else c2)) * e
                value += key[channel] * specular + s[0] * sheen
                value += glint * (max(key[channel], s[0]) * np.float32(0.9) - value)
                image[y, x, channel] = _ramp(value)


@nb.njit(cache=True, nogil=True)
def light_on_vertices(visible, weights, out):  # type: ignore[no-untyped-def]
    """out (V,) = Σ_d weights[d]·visible[d] / 255 for the directions whose weight is above 0; visible (D, V) uint8."""
    out[:] = 0
    for d in range(visible.shape[0]):
        if weights[d] > 0:
            w = np.float32(weights[d] / 255)
            for i in range(out.shape[0]):
                out[i] += w * visible[d, i]


@nb.njit(cache=True, nogil=True)
def soften_edges(image, depth, step, out):  # type: ignore[no-untyped-def]
    """Antialiasing: pixels beside a jump of the depth (more than `step` pixels) take a 3×3 tent average."""
    height, width = depth.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                out[y, x, c] = image[y, x, c]
            if not (0 < y < height - 1 and 0 < x < width - 1):
                continue
            z = depth[y, x]
            jump = max(abs(depth[y, x - 1] - z), abs(depth[y, x + 1] - z))
            jump = max(jump, max(abs(depth[y - 1, x] - z), abs(depth[y + 1, x] - z)))
            if jump > step:
                for c in range(3):
                    corners = image[y - 1, x - 1, c] + image[y - 1, x + 1, c]
                    corners += image[y + 1, x - 1, c] + image[y + 1, x + 1, c]
                    sides = image[y - 1, x, c] + image[y + 1, x, c] + image[y, x - 1, c] + image[y, x + 1, c]
                    out[y, x, c] = (4 * image[y, x, c] + 2 * sides + corners) / 16


@nb.njit(cache=True, nogil=True)
def finish(image, tile, offset, sigma, tones, grey, out):  # type: ignore[no-untyped-def]
    """Linear light to bytes: mix towards the luminance by `grey`, tone tables (3, T) to grey levels, then noise of
    `sigma` grey levels, most of it alike in the channels, from a fixed tile at an offset."""
    size, top = tile.shape[0], np.float32(tones.shape[1] - 1)
    grey, sigma = np.float32(grey), np.float32(sigma)
    for y in range(image.shape[0]):
        ty = (y + offset[0]) % size
        for x in range(image.shape[1]):
            tx = (x + offset[1]) % size
            r, g, b = image[y, x, 0], image[y, x, 1], image[y, x, 2]
            luminance = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            shared = np.float32(0.8) * tile[ty, tx, 1]
            for c in range(3):
                value = image[y, x, c] + grey * (luminance - image[y, x, c])
                value = tones[0 if grey > 0.99 else c, int(_ramp(value) * top + np.float32(0.5))]
                value += sigma * (shared + np.float32(0.6) * tile[ty, tx, c] * (1 - grey))
                out[y, x, c] = int(min(max(value, np.float32(0)), np.float32(255)) + np.float32(0.5))


@nb.njit(cache=True, nogil=True)
def render_head(  # type: ignore[no-untyped-def]
    image, mean, modes, coefficients, volume, pose, inverse_distance, torso, pivot, turn, triangles, uv, planes, blocks,
    base, layers, colours, gain, eyes, light, key, gloss, shadows, shadow_weights, open_, lock_vertices, lock_offsets,
):  # fmt: skip
    """From coefficients to the shaded head over image (H, W, 3), which holds the background, in one call.

    So threads hand the interpreter's lock over once, not once a step. volume (V, 3): what hair adds to the vertices, or
    (0, 3); lock_vertices (L, P), lock_offsets (L, P, 3): see `hair.Hair`; the rest is as in the functions above.
    Returns the picture, the depth (H, W), the locks (L, P, 3) in pixels, and the share of the key light on each (L,).
    """
    height, width = image.shape[:2]
    vertices = np.empty_like(mean)
    deform(mean, modes, coefficients, vertices)
    points = vertices.reshape(-1, 3)
    for i in range(volume.shape[0]):
        for c in range(3):
            points[i, c] += volume[i, c]
    twist(points, torso, pivot, turn)
    pixels = np.empty(points.shape)
    to_pixels(points, pose, inverse_distance, height, pixels)
    normals = np.empty_like(points)
    vertex_normals(pixels, triangles, normals)
    depth = np.empty((height, width), np.float32)
    owner = np.empty((height, width), np.int32)
    bary = np.empty((height, width, 2), np.float32)
    rasterise(pixels, triangles, depth, owner, bary)
    lit = np.empty(len(points), np.float32)
    light_on_vertices(shadows, shadow_weights, lit)
    shade(
        image, owner, bary, triangles, points, normals, lit, open_, uv, planes, blocks, base, layers, colours, gain,
        eyes, light, key, gloss,
    )  # fmt: skip
    scale = math.sqrt(pose[0, 0] ** 2 + pose[0, 1] ** 2 + pose[0, 2] ** 2)
    smooth = np.empty_like(image)
    soften_edges(image, depth, 0.14 * scale, smooth)

    n_locks, n_points = lock_vertices.shape
    locks = np.empty((n_locks, n_points, 3))
    lock_light = np.empty(n_locks, np.float32)
    at = np.empty((n_points, 3), points.dtype)
    for k in range(n_locks):
        for p in range(n_points):
            for c in range(3):
                at[p, c] = points[lock_vertices[k, p], c] + lock_offsets[k, p, c]
        to_pixels(at, pose, inverse_distance, height, locks[k])
        lock_light[k] = lit[lock_vertices[k, n_points // 2]]
    return smooth, depth, locks, lock_light
