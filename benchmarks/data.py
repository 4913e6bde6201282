"""Images per second that reach the device: packed and batched, beside the usual way. Both do the same transforms.

    python benchmarks/data.py                    faces of our own, 450×450 JPEG and .mat
    python benchmarks/data.py --root FOLDER      photographs in the layout of AFLW2000-3D
    python benchmarks/data.py --device cuda      wants a GPU, and neither Ray nor MLflow

The usual way: a Dataset that decodes the photograph with OpenCV, crops the face, warps it and changes its colours, one
image at a time, in a DataLoader with 2 workers. The packed way: rows of a memory-mapped array, one batched transform.
Both take the same random draws, and the grey levels between their outputs are printed.

Wall time says what a training sees; CPU time (all processes) says it on a machine that others use too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

# isort: off
from mtlsearch import _command  # noqa: F401 - before torch: it sets how OpenMP waits, here as in the commands
import torch

# isort: on
import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from mtlsearch.faces.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LUMA,
    Augmentation,
    Draws,
    draw,
    noise_tile,
    transform_images,
    transform_labels,
)
from mtlsearch.faces.datasets import open_dataset
from mtlsearch.faces.datasets.crops import crop_affine
from mtlsearch.faces.datasets.packing import CropSettings, pack_dataset
from mtlsearch.faces.packs.batches import DeviceSplit
from mtlsearch.faces.packs.exporting import export_pack
from mtlsearch.faces.packs.pack import Pack, ensure_pack
from mtlsearch.faces.rendering.synthetic import SyntheticRecipe

LABELS = ("landmarks", "visible", "angles", "pose", "shape", "expression")
MEAN, STD, GREY = (np.array(v, np.float32) for v in (IMAGENET_MEAN, IMAGENET_STD, LUMA))
WORKERS = 2


class UsualDataset(Dataset[tuple[torch.Tensor, int]]):
    """One face at a time, in the way most training code of the field does it, with OpenCV throughout.

    smooth: shrink the crop with area averages, as packing does; otherwise with plain bilinear samples, which is what
    most code does, is a little faster, and loses detail to aliasing.
    """

    def __init__(
        self, paths: list[Path], crops: np.ndarray, draws: Draws, stored: int, size: int, smooth: bool
    ) -> None:
        self.paths, self.crops, self.draws, self.stored, self.size = paths, crops, draws, stored, size
        self.smooth = smooth
        self.noise = noise_tile()

    def __len__(self) -> int:
        return len(self.draws.flip)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        d, photo = self.draws, i % len(self.paths)
        image = cv2.cvtColor(cv2.imread(str(self.paths[photo])), cv2.COLOR_BGR2RGB)
        affine = self.crops[photo]
        if self.smooth and affine[0, 0] < 1:
            factor = int(np.ceil(1 / affine[0, 0]))
            fine = affine * factor
            fine[:, 2] += (factor - 1) / 2
            side = self.stored * factor
            image = cv2.resize(
                cv2.warpAffine(image, fine, (side, side)), (self.stored,) * 2, interpolation=cv2.INTER_AREA
            )
        else:
            image = cv2.warpAffine(image, affine, (self.stored, self.stored))
        if d.flip[i]:
            image = image[:, ::-1]
        image = cv2.LUT(np.ascontiguousarray(image), (d.table[i].T[None] * 255).round().byte().numpy())
        image = cv2.warpAffine(image, d.affine[i].numpy(), (self.size,) * 2, borderMode=cv2.BORDER_REPLICATE)
        if d.grey[i]:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if d.blur[i] > 0:
            image = cv2.GaussianBlur(image, (0, 0), float(d.blur[i]), borderType=cv2.BORDER_REPLICATE)
        out = image.astype(np.float32) / 255
        if d.sigma[i] > 0:
            row, column = d.offset[i].tolist()
            out += float(d.sigma[i]) * np.roll(self.noise, (-row, -column), (0, 1))[: self.size, : self.size]
        out = (out - MEAN) / STD
        top, left, bottom, right = d.erased[i].clamp(min=0).tolist()
        out[top:bottom, left:right] = 0
        return torch.from_numpy(out.transpose(2, 0, 1).copy()), photo


def rows_of(draws: Draws, rows: slice) -> Draws:
    """Some rows of a batch's draws."""
    return Draws(**{field.name: getattr(draws, field.name)[rows] for field in fields(draws)})


def usual_batches(dataset: UsualDataset, batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    for images, _ in DataLoader(dataset, batch, num_workers=WORKERS, pin_memory=device.type == "cuda"):
        yield images.to(device, non_blocking=True)


def packed_batches(split: DeviceSplit, draws: Draws, batch: int, pack: Pack, size: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(draws.flip), batch):
        some = rows_of(draws, slice(start, start + batch))
        rows = torch.arange(start, start + len(some.flip)) % len(split)
        images, labels = split.batch(rows)
        transform_labels(labels, some, pack.stored_size, size)
        yield transform_images(images, some, size)


def measure(make: Callable[[], Iterator[torch.Tensor]], device: torch.device) -> tuple[float, float]:
    """Images per second of wall time, and of CPU time over all processes, of one pass."""

    def cpu() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    wall, busy, count = time.perf_counter(), cpu(), 0
    for images in make():
        count += len(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - wall), count / (cpu() - busy)


def published_layout(folder: Path, faces: int) -> Path:
    """Faces of our own as 450×450 JPEG with .mat files, in the layout of AFLW2000-3D."""
    recipe = SyntheticRecipe(train=0, val=0, test=faces, image_size=300, margin=1.5)
    assert recipe.stored_size == 450
    export_pack(ensure_pack(recipe, folder=folder / "rendered"), "test", folder / "aflw2000", "aflw2000")
    return folder / "aflw2000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder in the layout of AFLW2000-3D (default: rendered faces)")
    parser.add_argument("--faces", type=int, default=256, help="faces to render")
    parser.add_argument("--images", type=int, default=8192, help="images a pass, the faces over and over")
    parser.add_argument("--image-size", type=int, default=120)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3, help="passes of each way, in turn; the best counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=WORKERS, help="threads of the packed way on the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    device, size = torch.device(arguments.device), arguments.image_size
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root or published_layout(Path(scratch), arguments.faces)
        dataset = open_dataset("aflw2000", root)
        settings = CropSettings(size)
        began = time.perf_counter()
        pack = pack_dataset(dataset, Path(scratch) / "pack", settings)
        print(f"{len(dataset)} faces packed once in {time.perf_counter() - began:.1f} s, {WORKERS} workers, {device}")
        split = DeviceSplit(pack.split("test"), device, LABELS)
        print(f"the packed array lies on {'the device' if split.held else 'the host'}")
        crops = np.stack([crop_affine(sample.crop, size, pack.stored_size) for sample in dataset])
        paths = [dataset.root / f"{name}.jpg" for name in dataset.names]
        draws = draw(Augmentation(), arguments.images, pack.stored_size, size, size, torch.Generator().manual_seed(0))
        usual = {
            name: UsualDataset(paths, crops, draws, pack.stored_size, size, smooth)
            for name, smooth in (("usual", False), ("usual, smooth", True))
        }
        ways: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
            name: lambda way=way: usual_batches(way, arguments.batch, device)  # type: ignore[misc]
            for name, way in usual.items()
        }
        ways["packed"] = lambda: packed_batches(split, draws, arguments.batch, pack, size)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(2):  # compiles and fills caches
            next(iter(ways["packed"]()))
        for _ in range(arguments.repeats):
            for name, make in ways.items():
                rates[name].append(measure(make, device))
        best = {name: tuple(map(max, zip(*found))) for name, found in rates.items()}
        print(f"{'':<15}{'images/s':>10}{'ratio':>8}{'images/CPU s':>14}{'ratio':>8}")
        for name, (wall, busy) in best.items():
            ratios = best["packed"][0] / wall, best["packed"][1] / busy
            print(f"{name:<15}{wall:>10,.0f}{ratios[0]:>8.1f}{busy:>14,.0f}{ratios[1]:>8.1f}")
        levels = torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
        some = min(512, arguments.images)
        packed = torch.cat(
            [images.cpu() for images in packed_batches(split, rows_of(draws, slice(some)), some, pack, size)]
        )
        for name, way in usual.items():
            other = torch.stack([way[i][0] for i in range(some)])
            apart = ((packed - other).abs() * levels).mean().item()
            print(f"grey levels between packed and {name}: {apart:.2f} on average over {some} images")


if __name__ == "__main__":
    main()
