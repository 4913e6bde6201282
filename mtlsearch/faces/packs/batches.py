"""From a packed split to batches on the device: rows of one array, no decoding and no loader workers in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtlsearch.errors import InputError
from mtlsearch.faces.augmentation import Labels
from mtlsearch.faces.packs.pack import PackedSplit

#: the share of a GPU's free memory that a split may take; the rest is the network's
GPU_SHARE = 0.5
_COPY_ROWS = 4096


def fits(needed: int, free: int) -> bool:
    """Whether an array of so many bytes is held on a GPU with so many bytes free."""
    return needed <= GPU_SHARE * free


class DeviceSplit:
    """A packed split whose rows come as tensors on one device.

    On a GPU with room for it the image array is copied there once; elsewhere rows are read from the memory map as they
    are asked for, and all processes of a machine share its pages. Labels lie on the device in any case.

    split: of a pack; device; labels: the names that batches carry. InputError where the split lacks one.
    """

    def __init__(self, split: PackedSplit, device: torch.device, labels: Sequence[str]) -> None:
        missing = [name for name in labels if name not in split.labels]
        if missing:
            raise InputError(f"this split has no label {', '.join(missing)} (it has: {', '.join(split.labels)})")
        self.device = device
        self.labels: Labels = {name: torch.from_numpy(split.labels[name]).to(device) for name in labels}
        self._images = split.images
        self._held = _hold(split.images, device)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def held(self) -> bool:
        """Whether the images lie on the device."""
        return self._held is not None

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, Labels]:
        """Images (B, H, H, 3) uint8 and labels of these rows (B,) int64, on the device."""
        where = rows.to(self.device)
        labels = {name: values[where] for name, values in self.labels.items()}
        if self._held is not None:
            return self._held[where], labels
        images = torch.from_numpy(self._images[rows.cpu().numpy()])
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the computation
            images = images.pin_memory().to(self.device, non_blocking=True)
        return images, labels


def _hold(images: np.ndarray, device: torch.device) -> torch.Tensor | None:
    if device.type != "cuda" or not fits(images.nbytes, torch.cuda.mem_get_info(device)[0]):
        return None
    held = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _COPY_ROWS):
        part = np.array(images[start : start + _COPY_ROWS])  # torch takes no read-only array
        held[start : start + len(part)] = torch.from_numpy(part).to(device)
    return held
