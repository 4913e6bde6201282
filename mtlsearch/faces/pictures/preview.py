"""A contact sheet of a pack's faces with their landmarks, as they are stored or as a network sees them in training."""

from __future__ import annotations

import numpy as np
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.arrays import Bytes
from mtlsearch.faces.augmentation import Augmentation, augment, denormalize
from mtlsearch.faces.packs.pack import Pack
from mtlsearch.faces.pictures.contact_sheet import draw_landmarks


def pack_sheet(
    pack: Pack, split: str, columns: int = 8, rows: int = 4, scale: int = 1, seed: int = 0, augmented: bool = False
) -> Bytes:
    """Faces drawn at random from a split, in one picture (H, W, 3) uint8; the last row is filled up with black.

    scale: whole factor of enlargement; augmented: random crops of the default augmentation, in place of the stored
    images. Points that the annotators did not give are not drawn; InputError for a split without images.
    """
    packed = pack.split(split)
    if not len(packed):
        raise InputError(f"split {split!r} of {pack.folder} has no images")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(packed))[: columns * rows])
    images = torch.from_numpy(packed.images[chosen])
    labels = {name: torch.from_numpy(packed.labels[name][chosen]) for name in ("landmarks", "visible")}
    if augmented:
        generator = torch.Generator().manual_seed(seed)
        shown, labels = augment(images, labels, Augmentation(), pack.image_size, generator=generator)
        images = denormalize(shown)
    cells = []
    for i, image in enumerate(images.numpy()):
        points, visible = labels["landmarks"][i].numpy(), labels["visible"][i].numpy()
        if points.shape[0] == 21:  # hidden ones have no place
            points, visible = points[visible], visible[visible]
        cells.append(draw_landmarks(image, points, visible, scale))
    blank = np.zeros_like(cells[0])
    cells += [blank] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])
