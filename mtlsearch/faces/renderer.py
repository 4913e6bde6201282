"""A software renderer for the head: deform, project, z-buffer, shade, composite, finish. Numba, no GIL.

No fast-math: across machines geometry agrees to rounding, and pixels to about a grey level. Rasterising and
shading are separate passes: hidden surface is never shaded. Image arrays are float32 in [0, 1] until
`finish`.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

OFF = -1e30  # depth where nothing was drawn


@nb.njit(cache=True, nogil=True)
def deform(mean, modes, coefficients, out):  # type: ignore[no-untyped-def]
    """out (V·3,) = mean + Σ modes[k]·coefficients[k]; float32, summed in the order of the modes."""
    out[:] = mean
    for k in range(modes.shape[0]):
        c = coefficients[k]
        if c != 0:
            mode = modes[k]
            for i in range(out.shape[0]):
                out[i] += mode[i] * c


@nb.njit(cache=True, nogil=True)
def to_pixels(vertices, pose, height, out):  # type: ignore[no-untyped-def]
    """(V, 3) model units -> (V, 3) pixels: x, y down, z towards the viewer. pose (3, 4): [sR | t], y up."""
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        out[i, 0] = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
        out[i, 1] = (height - 1) - (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3])
        out[i, 2] = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]


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
        x0, y0, x1, y1, x2, y2 = (
            points[p, 0],
            points[p, 1],
            points[q, 0],
            points[q, 1],
            points[r, 0],
            points[r, 1],
        )
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


@nb.njit(cache=True, nogil=True)
def shade(  # type: ignore[no-untyped-def]
    image,
    owner,
    bary,
    triangles,
    normals,
    uv,
    flat,
    planes,
    boxes,
    base,
    layers,
    colours,
    gain,
    eyes,
    light,
    gloss,
):
    """Shade the pixels that `owner` covers.

    planes (P, h, w) uint8: masks in UV space; boxes (P, 4): rows and columns outside which a plane is 0. base (3,):
    skin. layers (L, 2): plane, opacity; colours (L, 3): the layers are mixed over the skin in order. gain: planes of
    multiplicative detail (index, strength) and occlusion (index, strength). flat (V, 2): x, y on the mean head, for the
    irises; eyes: white's layer, gaze x, gaze y, radius, softness, colour r, g, b. light (3, 9): second-order irradiance
    per channel; gloss: strength, direction x, y, z.
    """
    rows, columns = planes.shape[1] - 1, planes.shape[2] - 1
    detail, occlusion = int(gain[0, 0]), int(gain[1, 0])
    white = int(eyes[0])
    n_layers = layers.shape[0]
    boxes_of = np.empty((n_layers, 4), np.int32)
    for k in range(n_layers):
        boxes_of[k] = boxes[int(layers[k, 0])]
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            t = owner[y, x]
            if t < 0:
                continue
            p, q, r = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            w1, w2 = bary[y, x, 0], bary[y, x, 1]
            w0 = 1 - w1 - w2
            u = (w0 * uv[p, 0] + w1 * uv[q, 0] + w2 * uv[r, 0]) * columns
            v = (w0 * uv[p, 1] + w1 * uv[q, 1] + w2 * uv[r, 1]) * rows
            column, row = min(int(u), columns - 1), min(int(v), rows - 1)
            fc, fr = np.float32(u - column), np.float32(v - row)
            c0, c1, c2 = base[0], base[1], base[2]
            for k in range(n_layers):
                if row < boxes_of[k, 0] or row > boxes_of[k, 1] or column < boxes_of[k, 2] or column > boxes_of[k, 3]:
                    continue
                m = _tap(planes[int(layers[k, 0])], row, column, fr, fc) * layers[k, 1]
                if m > 0:
                    c0 += (colours[k, 0] - c0) * m
                    c1 += (colours[k, 1] - c1) * m
                    c2 += (colours[k, 2] - c2) * m
                    if k == white:  # iris, pupil and glint lie within the white of the eye
                        ex = w0 * flat[p, 0] + w1 * flat[q, 0] + w2 * flat[r, 0]
                        ey = w0 * flat[p, 1] + w1 * flat[q, 1] + w2 * flat[r, 1]
                        dx = abs(ex) - 0.31 - (eyes[1] if ex > 0 else -eyes[1])
                        dy = ey - 0.256 - eyes[2]
                        distance = math.sqrt(dx * dx + dy * dy)
                        iris = min(max((eyes[3] - distance) / eyes[4] + 0.5, 0), 1) * m
                        pupil = min(max((0.42 * eyes[3] - distance) / eyes[4] + 0.5, 0), 1) * iris
                        c0 += (eyes[5] - c0) * iris
                        c1 += (eyes[6] - c1) * iris
                        c2 += (eyes[7] - c2) * iris
                        c0 *= 1 - pupil
                        c1 *= 1 - pupil
                        c2 *= 1 - pupil
                        gx = ex - (0.325 if ex > 0 else -0.295) - eyes[1]
                        gy = ey - 0.272 - eyes[2]
                        glint = 0.9 * m * math.exp(-(gx * gx + gy * gy) / (2 * (0.008 + 0.5 * eyes[4]) ** 2))
                        c0 += (1 - c0) * glint
                        c1 += (1 - c1) * glint
                        c2 += (1 - c2) * glint
            nx = w0 * normals[p, 0] + w1 * normals[q, 0] + w2 * normals[r, 0]
            ny = w0 * normals[p, 1] + w1 * normals[q, 1] + w2 * normals[r, 1]
            nz = w0 * normals[p, 2] + w1 * normals[q, 2] + w2 * normals[r, 2]
            n = 1 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
            nx, ny, nz = nx * n, ny * n, nz * n
            g = 1 + gain[0, 1] * (_tap(planes[detail], row, column, fr, fc) - np.float32(0.5))
            g *= 1 - gain[1, 1] * _tap(planes[occlusion], row, column, fr, fc)
            shine = nx * gloss[1] + ny * gloss[2] + nz * gloss[3]
            shine = gloss[0] * max(shine, 0) ** 12 * g
            for channel in range(3):
                s = light[channel]
                e = s[0] + s[1] * nx + s[2] * ny + s[3] * nz + s[4] * nx * ny + s[5] * nx * nz + s[6] * ny * nz
                e += s[7] * (nx * nx - ny * ny) + s[8] * (3 * nz * nz - 1)
                e = max(e, 0.06) * g
                value = c0 if channel == 0 else (c1 if channel == 1 else c2)
                image[y, x, channel] = min(max(value * e + shine, 0), 1)


@nb.njit(cache=True, nogil=True)
def soften_edges(image, depth, step, out):  # type: ignore[no-untyped-def]
    """Antialiasing: pixels beside a jump of the depth (more than `step` pixels) take a 3×3 tent average."""
    height, width = depth.shape
    out[:] = image
    for y in range(1, height - 1):
        for x in range(1, width - 1):
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
def finish(image, tile, offset, sigma, table, out):  # type: ignore[no-untyped-def]
    """Noise from a fixed tile at an offset, then a tone table of 1024 entries, to bytes."""
    size = tile.shape[0]
    for y in range(image.shape[0]):
        ty = (y + offset[0]) % size
        for x in range(image.shape[1]):
            tx = (x + offset[1]) % size
            for c in range(3):
                value = image[y, x, c] + sigma * tile[ty, tx, c]
                out[y, x, c] = table[int(min(max(value, 0), 1) * 1023 + 0.5)]


@nb.njit(cache=True, nogil=True)
def visible_points(points, depth, covered, tolerance, out):  # type: ignore[no-untyped-def]
    """Points (K, 3) in pixels that lie inside the image, at most `tolerance` behind the surface and under no shape.

    A point on the silhouette is tried against its four neighbouring pixels: one that sees it, or sees past the head, is
    enough.
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
def render_head(  # type: ignore[no-untyped-def]
    image, mean, modes, coefficients, volume, pose, triangles, uv, flat, planes, boxes, base, layers, colours,
    gain, eyes, light, gloss, behind, before, landmarks, visible,
):  # fmt: skip
    """Everything from coefficients to the composed picture, in one call.

    So threads hand the interpreter's lock over once an image, not once a step. image (H, W, 3) holds the background;
    returns the picture, and sets visible (K,) of landmarks (K, 3) in pixels. volume (V, 3): what hair adds to the
    vertices, or (0, 3). The rest is as in the functions above.
    """
    height, width = image.shape[:2]
    vertices = np.empty_like(mean)
    deform(mean, modes, coefficients, vertices)
    points = vertices.reshape(-1, 3)
    for i in range(volume.shape[0]):
        for c in range(3):
            points[i, c] += volume[i, c]
    pixels = np.empty(points.shape)
    to_pixels(points, pose, height, pixels)
    normals = np.empty_like(points)
    vertex_normals(pixels, triangles, normals)
    depth = np.empty((height, width), np.float32)
    owner = np.empty((height, width), np.int32)
    bary = np.empty((height, width, 2), np.float32)
    rasterise(pixels, triangles, depth, owner, bary)

    covered = np.zeros((height, width), np.bool_)
    paint_shapes(image, covered, behind)
    covered[:] = False
    shade(
        image, owner, bary, triangles, normals, uv, flat, planes, boxes, base, layers,
        colours, gain, eyes, light,
        gloss,
    )  # fmt: skip
    scale = math.sqrt(pose[0, 0] ** 2 + pose[0, 1] ** 2 + pose[0, 2] ** 2)
    smooth = np.empty_like(image)
    soften_edges(image, depth, 0.14 * scale, smooth)
    paint_shapes(smooth, covered, before)
    visible_points(landmarks, depth, covered, 0.06 * scale, visible)
    return smooth
