"""Rotations, crops and mirror images of faces, in the convention of 300W-LP and AFLW2000-3D.

Angles are degrees in the order pitch, yaw, roll, and

    R = Rx(pitch) · Ry(yaw) · Rz(roll)
    Rx = [[1, 0, 0], [0, c, s], [0, −s, c]],  Ry = [[c, 0, −s], [0, 1, 0], [s, 0, c]],
    Rz = [[c, s, 0], [−s, c, 0], [0, 0, 1]]

acts on model coordinates (x right, y up, z towards the viewer). A pose is the 3×4 matrix [sR | t] that takes model
coordinates to *y-up image coordinates*: with 0-based pixel centres and an image of h rows, the pixel (x, y) has the
y-up coordinates (x, h − 1 − y). Landmarks are always in pixels, y down, the origin at the centre of pixel (0, 0).

Every function takes NumPy arrays or torch tensors and gives back the same kind and dtype. Only NumPy and torch are
imported.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

FLIP_68: tuple[int, ...] = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    27, 28, 29, 30,  # bridge of the nose
    *range(35, 30, -1),  # base of the nose
    45, 44, 43, 42, 47, 46,  # the eye on the image's left takes the places of the other
    39, 38, 37, 36, 41, 40,
    *range(54, 47, -1),  # outer lips, upper edge
    *range(59, 54, -1),  # outer lips, lower edge
    *range(64, 59, -1),  # inner lips, upper edge
    67, 66, 65,
)  # fmt: skip
"""`landmarks[FLIP_68]` puts the 68 points of a mirrored face back into the scheme's order. An involution."""

FLIP_21: tuple[int, ...] = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 16, 15, 14, 13, 12, 19, 18, 17, 20)
"""The same for AFLW's 21 points: brows, eyes, ear, nose, ear, mouth, chin."""

FLIPS: dict[int, tuple[int, ...]] = {68: FLIP_68, 21: FLIP_21}
"""The mirror permutation of a layout by its number of points."""


def _namespace(array: Any) -> Any:
    return torch if isinstance(array, torch.Tensor) else np


def _tiny(array: Any) -> float:
    """sqrt of the smallest normal number: below it a sum of squares carries no direction any more."""
    info = torch.finfo(array.dtype) if isinstance(array, torch.Tensor) else np.finfo(array.dtype)
    return math.sqrt(float(info.tiny))


def _eps(array: Any) -> float:
    info = torch.finfo(array.dtype) if isinstance(array, torch.Tensor) else np.finfo(array.dtype)
    return float(info.eps)


def _stack(arrays: list[Any], axis: int = -1) -> Any:
    return torch.stack(arrays, dim=axis) if isinstance(arrays[0], torch.Tensor) else np.stack(arrays, axis=axis)


def _join(arrays: list[Any]) -> Any:
    return torch.cat(arrays, -1) if isinstance(arrays[0], torch.Tensor) else np.concatenate(arrays, -1)


def _floating(array: Any) -> Any:
    """Integers become float64 (NumPy) or the default dtype (torch); lists become arrays."""
    if isinstance(array, torch.Tensor):
        return array if array.is_floating_point() else array.to(torch.get_default_dtype())
    array = np.asarray(array)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _atan2(y: Any, x: Any) -> Any:
    """atan2 with a finite gradient: at (0, 0) the value and the gradient are 0."""
    empty = y * y + x * x < _tiny(y)
    if isinstance(y, torch.Tensor):
        return torch.atan2(torch.where(empty, y * 0, y), torch.where(empty, x * 0 + 1, x))
    return np.arctan2(np.where(empty, y * 0, y), np.where(empty, x * 0 + 1, x))


def _norm(x: Any, y: Any) -> Any:
    """hypot with a finite gradient: at (0, 0) the gradient is 0."""
    xp = _namespace(x)
    square = x * x + y * y
    empty = square < _tiny(x)
    return xp.where(empty, square * 0, xp.sqrt(xp.where(empty, square * 0 + 1, square)))


def euler_to_matrix(angles: Array) -> Array:
    """Rotation matrices of angles.

    angles (…, 3): degrees, pitch, yaw, roll. Returns (…, 3, 3), R = Rx(pitch)·Ry(yaw)·Rz(roll).

    >>> euler_to_matrix(np.array([0.0, 0.0, 90.0])).round(12)[0].tolist()
    [0.0, 1.0, 0.0]
    """
    angles = _floating(angles)
    xp = _namespace(angles)
    radians = angles * (math.pi / 180)
    cosines, sines = xp.cos(radians), xp.sin(radians)
    cp, cy, cr = cosines[..., 0], cosines[..., 1], cosines[..., 2]
    sp, sy, sr = sines[..., 0], sines[..., 1], sines[..., 2]
    rows = [
        [cy * cr, cy * sr, -sy],
        [sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy],
        [cp * sy * cr + sp * sr, cp * sy * sr - sp * cr, cp * cy],
    ]
    return _stack([_stack(row) for row in rows], axis=-2)


def matrix_to_euler(matrix: Array) -> Array:
    """Angles of rotation matrices: the exact inverse of `euler_to_matrix` for |yaw| < 90°.

    matrix (…, 3, 3), rotations (see `orthonormalize` for anything else). Returns (…, 3) degrees: pitch, yaw, roll, with
    |yaw| ≤ 90°.

    pitch = atan2(R12, R22), yaw = atan2(−R02, hypot(R12, R22)), and roll = atan2(sp·R20 − cp·R10, cp·R11 − sp·R21). On
    a rotation with |yaw| < 90° this roll equals atan2(R01, R00); unlike that one it stays consistent with the pitch at
    ±90°, where both are known only together, so that matrix → angles → matrix holds everywhere. Gradients are finite
    for any finite matrix, the zero matrix included (its angles are 0).
    """
    matrix = _floating(matrix)
    xp = _namespace(matrix)
    r12, r22 = matrix[..., 1, 2], matrix[..., 2, 2]
    pitch = _atan2(r12, r22)
    yaw = _atan2(-matrix[..., 0, 2], _norm(r12, r22))
    cp, sp = xp.cos(pitch), xp.sin(pitch)
    roll = _atan2(
        sp * matrix[..., 2, 0] - cp * matrix[..., 1, 0],
        cp * matrix[..., 1, 1] - sp * matrix[..., 2, 1],
    )
    return _stack([pitch, yaw, roll]) * (180 / math.pi)


def wrap_degrees(angles: Array) -> Array:
    """Angles in degrees brought to [−180, 180)."""
    angles = _floating(angles)
    return (angles + 180) % 360 - 180


def _cross(a: Any, b: Any) -> Any:
    return _stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ]
    )


def orthonormalize(matrix: Array) -> tuple[Array, Array]:
    """The rotation and the scale of any 3×3 matrix, as a network's nine numbers need it.

    Gram–Schmidt on the first two rows: e1 = r1/|r1|, e2 = the part of r2 across e1, at unit length, e3 = e1 × e2. scale
    = (|r1| + |r2|)/2. The third row is not used: it carries only what the first two imply (3DDFA does the same).

    matrix (…, 3, 3). Returns (rotation (…, 3, 3) with determinant +1, scale (…)). Values and gradients are finite for
    any nine finite numbers of magnitude below 1e38: a row without a direction (zero, or collinear with the first) is
    replaced by a fixed axis and passes no gradient.
    """
    matrix = _floating(matrix)
    xp = _namespace(matrix)
    eps = 8 * _eps(matrix)
    rows = matrix[..., :2, :]
    if isinstance(rows, torch.Tensor):
        largest: Any = rows.detach().abs().amax((-2, -1))
    else:
        largest = np.abs(rows).max((-2, -1))
    unit = xp.where(largest < _tiny(matrix), largest * 0 + 1, largest)  # constant: it cancels in the result
    rows = rows / unit[..., None, None]
    first, second = rows[..., 0, :], rows[..., 1, :]

    def length_of(vector: Any, empty: Any) -> Any:
        square = (vector * vector).sum(-1)
        return xp.sqrt(xp.where(empty, square * 0 + 1, square))

    def is_short(vector: Any) -> Any:
        return (vector * vector).sum(-1) < eps * eps

    no_first, no_second = is_short(first), is_short(second)
    length1, length2 = length_of(first, no_first), length_of(second, no_second)
    axes = matrix.new_tensor(np.eye(3)) if isinstance(matrix, torch.Tensor) else np.eye(3, dtype=matrix.dtype)
    e1 = xp.where(no_first[..., None], first * 0 + axes[0], first / length1[..., None])
    across = second - (e1 * second).sum(-1)[..., None] * e1
    collinear = is_short(across)
    # Any axis well away from e1 serves: y, unless e1 lies along it.
    along_y = (abs(e1[..., 1]) > 0.9)[..., None]
    spare = xp.where(along_y, e1 * 0 + axes[0], e1 * 0 + axes[1])
    spare = spare.detach() if xp is torch else spare
    across = xp.where(collinear[..., None], spare - (e1 * spare).sum(-1)[..., None] * e1, across)
    e2 = across / xp.sqrt((across * across).sum(-1))[..., None]
    # One more pass: the first leaves an error of eps / |across|, which is large for nearly collinear rows.
    e2 = e2 - (e1 * e2).sum(-1)[..., None] * e1
    e2 = e2 / xp.sqrt((e2 * e2).sum(-1))[..., None]
    zero = length1 * 0
    scale = (xp.where(no_first, zero, length1) + xp.where(no_second, zero, length2)) / 2 * unit
    return _stack([e1, e2, _cross(e1, e2)], axis=-2), scale


def box_of_landmarks(landmarks: Array) -> Array:
    """(…, K, 2 or 3) pixels -> (…, 4) pixels: left, top, right, bottom of the points (x and y only)."""
    landmarks = _floating(landmarks)
    points = landmarks[..., :2]
    if isinstance(points, torch.Tensor):
        return torch.cat([points.amin(-2), points.amax(-2)], -1)
    return np.concatenate([points.min(-2), points.max(-2)], -1)


def crop_from_landmarks(landmarks: Array, factor: float = math.sqrt(2)) -> Array:
    """The square crop around landmarks: side max(w, h)·√2 around the centre of their box.

    (…, K, 2 or 3) pixels -> (…, 4) pixels: left, top, right, bottom, the *centres* of the outermost pixels lie half a
    pixel inside. It may reach beyond the image.
    """
    box = box_of_landmarks(landmarks)
    low, high = box[..., :2], box[..., 2:]
    size = high - low
    half = (size.amax(-1) if isinstance(size, torch.Tensor) else size.max(-1))[..., None] * (factor / 2)
    centre = (low + high) / 2
    return _join([centre - half, centre + half])


def crop_from_box(box: Array) -> Array:
    """The square crop around a face detector's box, 3DDFA's rule: side 1.58·(w + h)/2, its centre 0.14·(w + h)/2 below.

    (…, 4) pixels: left, top, right, bottom -> (…, 4), as `crop_from_landmarks`.
    """
    box = _floating(box)
    low, high = box[..., :2], box[..., 2:]
    size = (high - low).sum(-1)[..., None] / 2
    centre = (low + high) / 2 + _join([size * 0, size * 0.14])
    half = size * (1.58 / 2)
    return _join([centre - half, centre + half])


def stored_side(image_size: int, margin: float) -> int:
    """Side of the image that holds a crop of image_size pixels and its margin, a factor: of the same parity, so that
    the crop lies in the exact centre."""
    stored = math.ceil(image_size * margin - 1e-9)
    return stored + (stored - image_size) % 2


def _in_plane(degrees: Any) -> Any:
    """Rz of an angle (…) in degrees, by exact values at 0."""
    zero = degrees * 0
    return euler_to_matrix(_stack([zero, zero, degrees]))


def rotate_angles(angles: Array, degrees: Array) -> Array:
    """Angles of a face after its image is turned *clockwise* (as seen) by `degrees`: R becomes Rz(degrees)·R.

    angles (…, 3) and degrees (…), both in degrees. All three angles change, since roll is the rightmost factor of R.
    Two triples of angles give the same matrix, (p, y, r) and (p + 180, 180 − y, r + 180); the one nearer to the given
    angles is returned, so that faces turned beyond ±90° of yaw stay on their branch. A turn by 0 changes nothing.
    """
    angles = _floating(angles)
    xp = _namespace(angles)
    degrees = degrees + angles[..., 0] * 0
    direct = matrix_to_euler(_in_plane(degrees) @ euler_to_matrix(angles))
    other = _stack([direct[..., 0] + 180, 180 - direct[..., 1], direct[..., 2] + 180])
    direct, other = wrap_degrees(direct), wrap_degrees(other)

    def distance(candidate: Any) -> Any:
        return abs(wrap_degrees(candidate - angles))[..., :2].sum(-1)

    turned = xp.where((distance(other) < distance(direct))[..., None], other, direct)
    return xp.where((degrees == 0)[..., None], angles, turned)


def transform_points(points: Array, affine: Array) -> Array:
    """Points (…, K, 2 or 3) in pixels, y down, under a 2×3 similarity (…, 2, 3) of the image.

    z, where there is one, is scaled like x and y.
    """
    linear, offset = affine[..., :2], affine[..., 2]
    flat = points[..., :2] @ linear.swapaxes(-1, -2) + offset[..., None, :]
    if points.shape[-1] == 2:
        return flat
    scale = _norm(linear[..., 0, 0], linear[..., 1, 0])
    return _join([flat, points[..., 2:] * scale[..., None, None]])


def invert_affine(affine: Array) -> Array:
    """The inverse (…, 2, 3) of maps (…, 2, 3) of the plane."""
    linear = _namespace(affine).linalg.inv(affine[..., :2])
    return _join([linear, -(linear @ affine[..., 2:])])


def compose_affines(after: Array, before: Array) -> Array:
    """The map (…, 2, 3) that does `before`, then `after`."""
    linear = after[..., :2] @ before[..., :2]
    return _join([linear, after[..., :2] @ before[..., 2:] + after[..., 2:]])


def rotate_pose(pose: Array, affine: Array, height: int, new_height: int) -> Array:
    """The pose after a similarity of the image (rotation, scale, shift; no mirroring, see `mirror_pose`).

    pose (…, 12): row-major 3×4 [sR | t] into the y-up pixels of an image of `height` rows. affine (…, 2, 3): maps
    pixels (x, y down) of that image to pixels of an image of `new_height` rows. Returns (…, 12).
    """
    matrix = pose.reshape(*pose.shape[:-1], 3, 4)
    a, b, tx = affine[..., 0, 0], affine[..., 0, 1], affine[..., 0, 2]
    c, d, ty = affine[..., 1, 0], affine[..., 1, 1], affine[..., 1, 2]
    scale, zero = _norm(a, c), a * 0
    # y_up = height − 1 − y turns [[a, b], [c, d]] into [[a, −b], [−c, d]].
    linear = _stack([_stack([a, -b, zero]), _stack([-c, d, zero]), _stack([zero, zero, scale])], axis=-2)
    shift = _stack([tx + b * (height - 1), (new_height - 1) - ty - d * (height - 1), zero])
    moved = linear @ matrix
    left, last = moved[..., :3], moved[..., 3] + shift
    return _join([left, last[..., None]]).reshape(pose.shape)


def mirror_angles(angles: Array) -> Array:
    """Angles (…, 3) of the mirrored face: pitch stays, yaw and roll change sign. Exact on every branch."""
    return _stack([angles[..., 0], -angles[..., 1], -angles[..., 2]])


def mirror_pose(pose: Array, width: int) -> Array:
    """The pose (…, 12) after the image of `width` columns is flipped left to right: F·R·F, t_x -> width − 1 − t_x.

    It maps the mirrored model, whose parameters are the old ones times their parity signs.
    """
    matrix = pose.reshape(*pose.shape[:-1], 3, 4)
    signs = np.array([[1, -1, -1, -1], [-1, 1, 1, 1], [-1, 1, 1, 1]])
    shift = np.zeros((3, 4))
    shift[0, 3] = width - 1
    if isinstance(matrix, torch.Tensor):
        return (matrix * matrix.new_tensor(signs) + matrix.new_tensor(shift)).reshape(pose.shape)
    return (matrix * signs.astype(matrix.dtype) + shift.astype(matrix.dtype)).reshape(pose.shape)


def mirror_landmarks(landmarks: Array, width: int, flip: tuple[int, ...] = FLIP_68) -> Array:
    """Landmarks (…, K, 2 or 3) after the image of `width` columns is flipped: x -> width − 1 − x, then
    `flip`'s order.

    flip: a permutation of K that is its own inverse.
    """
    flipped = landmarks[..., list(flip), :]
    x = (width - 1) - flipped[..., :1]
    return _join([x, flipped[..., 1:]])


def pose_matrix(angles: Array, scale: Array, translation: Array) -> Array:
    """[sR | t] as 12 numbers. angles (…, 3) degrees, scale (…) pixels per model unit, translation (…, 3) y-up
    pixels."""
    rotation = euler_to_matrix(angles) * scale[..., None, None]
    joined = _join([rotation, translation[..., None]])
    return joined.reshape(*joined.shape[:-2], 12)


def project(points: Array, pose: Array, height: int, inverse_distance: Array | float = 0.0) -> Array:
    """Model points (…, K, 3) under poses (…, 12) -> (…, K, 3) pixels of an image of `height` rows: x, y down, z.

    inverse_distance (…): 0 for weak perspective, [sR | t] itself. Else 1 / the camera's distance from the model's
    origin, in model units: a point at depth Z = (R·S)_z is enlarged about t by 1/(1 − Z·inverse_distance), in all three
    coordinates. That is a perspective camera that looks at the origin; [sR | t] is its first-order approximation there.
    """
    matrix = pose.reshape(*pose.shape[:-1], 3, 4)
    moved = points @ matrix[..., :3].swapaxes(-1, -2)
    if not (isinstance(inverse_distance, int | float) and inverse_distance == 0):
        scale = _norm(_norm(matrix[..., 2, 0], matrix[..., 2, 1]), matrix[..., 2, 2])
        moved = moved / (1 - moved[..., 2:] * (inverse_distance / scale)[..., None, None])
    moved = moved + matrix[..., None, :, 3]
    return _stack([moved[..., 0], (height - 1) - moved[..., 1], moved[..., 2]])
