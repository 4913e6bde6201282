"""Contact sheets: many faces on one picture, with and without their landmarks, for people to look at.

    python -m mtlsearch.faces.pictures.contact_sheet docs/images/synthetic-faces.jpg

makes the one in the documentation: the first 40 faces of the default recipe at 120 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Bytes, Floats
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe, render_sample

VISIBLE, HIDDEN = (60, 230, 90), (240, 70, 60)  # RGB


def draw_landmarks(image: Bytes, landmarks: Floats, visible: np.ndarray | None = None, scale: int = 1) -> Bytes:
    """A copy of an image (H, W, 3) RGB, enlarged by a whole factor, with dots: green where visible, else red.

    landmarks (K, 2 or 3): pixels of the image, the origin at the centre of pixel (0, 0); visible (K,) bool.
    """
    height, width = image.shape[:2]
    size = (width * scale, height * scale)
    out = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    radius = max(1.0, min(size) / 140)
    for k, (x, y) in enumerate(landmarks[:, :2]):
        # OpenCV takes fixed-point coordinates: 4 bits after the point.
        at = [round(((v + 0.5) * scale - 0.5) * 16) for v in (x, y)]
        colour = VISIBLE if visible is None or visible[k] else HIDDEN
        cv2.circle(out, (at[0], at[1]), round(radius * 16), colour, -1, cv2.LINE_AA, 4)
    return out


def contact_sheet(
    recipe: SyntheticRecipe, split: str = "train", columns: int = 8, plain_rows: int = 3, marked_rows: int = 2
) -> Bytes:
    """The first images of a split as one picture: `plain_rows` as they are, then `marked_rows` with landmarks."""
    wanted = columns * (plain_rows + marked_rows)
    if wanted > recipe.count(split):
        raise InputError(f"a sheet of {wanted} faces needs as many in split {split!r}, which has {recipe.count(split)}")
    cells = []
    for i in range(wanted):
        sample = render_sample(recipe, split, i)
        marked = i >= columns * plain_rows
        cells.append(draw_landmarks(sample.image, sample.landmarks, sample.visible) if marked else sample.image)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, wanted, columns)])


def save_image(image: Bytes, path: str | Path) -> Path:
    """Write an RGB image (H, W, 3) uint8 as PNG or JPEG, by the path's ending; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"images are written as .png or .jpg, got {str(path)!r}")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9] if kind == ".png" else []
    _, encoded = cv2.imencode(kind, np.ascontiguousarray(image[..., ::-1]), options)
    path.write_bytes(encoded.tobytes())
    return path


if __name__ == "__main__":
    save_image(contact_sheet(SyntheticRecipe(image_size=120)), sys.argv[1])
