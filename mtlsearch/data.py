"""python -m mtlsearch.data: render, pack, inspect, export and preview face data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option

_PACK = "folder of a pack"
_WORKERS = "threads (default: all CPUs of this process)"


def main() -> None:
    """Render, pack, inspect, export and preview face data.

    \b
    Examples:
      python -m mtlsearch.data render packs/synthetic --train 20000 --image-size 120
      python -m mtlsearch.data pack aflw2000 AFLW2000 packs/aflw2000
      python -m mtlsearch.data pack 300w_lp_3d 300W_LP packs/300w_lp_3d --basis 3ddfa/basis --skip-bad
      python -m mtlsearch.data inspect packs/aflw2000 --verify
      python -m mtlsearch.data preview packs/aflw2000 sheet.png --split test
      python -m mtlsearch.data export packs/synthetic exported --layout 300w_lp
      python -m mtlsearch.train --data packs/300w_lp_3d --set data.test=packs/aflw2000
    """


@contextmanager
def _kept() -> Iterator[None]:
    """Says on an interruption that nothing is lost, and ends with the exit status of one."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what was done is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def render(
    folder: Annotated[Path | None, Argument(help="folder that becomes the pack (default: in the cache)")] = None,
    train: Annotated[int, Option(min=0, help="images of the training split")] = 3000,
    val: Annotated[int, Option(min=0, help="images of the validation split")] = 400,
    test: Annotated[int, Option(min=0, help="images of the test split")] = 600,
    image_size: Annotated[int, Option(help="side of the crops in pixels")] = 120,
    margin: Annotated[float, Option(help="side of the stored images over it")] = 1.25,
    seed: Annotated[int, Option(min=0, help="seed of the faces")] = 0,
    workers: Annotated[int | None, Option(min=1, help=_WORKERS)] = None,
) -> None:
    """Render a synthetic set; after an interruption the same command goes on."""
    from mtlsearch.faces.packs.pack import ensure_pack
    from mtlsearch.faces.rendering.synthetic import SyntheticRecipe
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    recipe = SyntheticRecipe(seed=seed, train=train, val=val, test=test, image_size=image_size, margin=margin)
    with _kept(), progressing(console, "rendering") as progress:
        made = ensure_pack(recipe, progress=progress, workers=workers, folder=folder, say=console.print)
    console.print(f"{made.folder.absolute()}: {made.counts} [pack {made.digest}]", soft_wrap=True)


def pack(
    dataset: Annotated[str, Argument(help="name of a data set; docs/data.md lists them and their layouts")],
    root: Annotated[Path, Argument(help="folder that holds it (also below MTLSEARCH_DATA)")],
    folder: Annotated[Path, Argument(help="folder that becomes the pack")],
    basis: Annotated[
        Path | None, Option(help="folder of 3DDFA's model or of its 68-point basis (u_base.txt, …)")
    ] = None,
    image_size: Annotated[int, Option(help="side of the crops in pixels")] = 120,
    margin: Annotated[float, Option(help="side of the stored images over it; 1 for published crops")] = 1.25,
    val_share: Annotated[float, Option(help="share of the training photographs that becomes the val split")] = 0.05,
    test_names: Annotated[Path | None, Option(help="file that names the samples of the test split, one a line")] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave out and list what is damaged or missing")] = False,
    workers: Annotated[int | None, Option(min=1, help=_WORKERS)] = None,
) -> None:
    """Pack a published data set; after an interruption the same command goes on."""
    from mtlsearch.faces.datasets import open_basis, open_dataset
    from mtlsearch.faces.datasets.packing import CropSettings, SplitSettings, pack_dataset, read_names
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    opened = open_dataset(dataset, root, None if basis is None else open_basis(basis))
    tested = frozenset() if test_names is None else read_names(test_names)
    with _kept(), progressing(console, "packing") as progress:
        made = pack_dataset(
            opened,
            folder,
            CropSettings(image_size, margin),
            SplitSettings(val_share, tested),
            skip_bad=skip_bad,
            progress=progress,
            workers=workers,
            say=console.print,
        )
    if opened.left_out:
        console.print(f"{opened.left_out:,} faces lack what a sample needs (see docs/data.md), and are none")
    if skipped := made.manifest["skipped"]:
        console.print(f"{len(skipped):,} samples were left out; the manifest lists them", soft_wrap=True)
    console.print(f"{made.folder.absolute()}: {made.counts} [pack {made.digest}]", soft_wrap=True)


def inspect(
    folder: Annotated[Path, Argument(help=_PACK)],
    verify: Annotated[bool, Option("--verify", help="read everything and compare checksums")] = False,
) -> None:
    """Say what a pack holds: its source, its splits, their poses, and whether its files are whole."""
    from mtlsearch.faces.packs.inspection import describe, split_table
    from mtlsearch.faces.packs.pack import open_pack

    console = _command.screen()
    opened = open_pack(folder, verify=verify)
    for line in describe(opened):
        console.print(line, soft_wrap=True)
    console.print(split_table(opened))
    console.print(
        "every file has its checksum" if verify else "sizes and shapes are right; --verify checks the content"
    )


def export(
    folder: Annotated[Path, Argument(help=_PACK)],
    output: Annotated[Path, Argument(help="folder to write, empty or not there yet")],
    layout: Annotated[str, Option(help="aflw2000, 300w_lp or 300w_lp_position_maps")] = "aflw2000",
    split: Annotated[str, Option(help="train, val or test")] = "test",
) -> None:
    """Write a pack in the layout of a published data set, which `pack` reads again."""
    from mtlsearch.faces.packs.exporting import export_pack
    from mtlsearch.faces.packs.pack import open_pack
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    with _kept(), progressing(console, "exporting") as progress:
        count = export_pack(open_pack(folder), split, output, layout, progress)
    console.print(
        f"{output.absolute()}: {count:,} faces in the layout of {layout}. To pack them again:", soft_wrap=True
    )
    basis = ["--basis", output / "basis"] if (output / "basis").exists() else []
    console.print(f"  {_command.command('data', 'pack', layout, output, 'PACK', *basis)}", soft_wrap=True)


def preview(
    folder: Annotated[Path, Argument(help=_PACK)],
    output: Annotated[Path, Argument(help="picture to write: .png or .jpg")],
    split: Annotated[str, Option(help="train, val or test")] = "train",
    columns: Annotated[int, Option(min=1, max=32, help="faces in a row")] = 8,
    rows: Annotated[int, Option(min=1, max=32, help="rows")] = 4,
    scale: Annotated[int, Option(min=1, max=8, help="times that a face is enlarged")] = 1,
    seed: Annotated[int, Option(min=0, help="of the draw of faces, and of the augmentation")] = 0,
    augmented: Annotated[bool, Option("--augmented", help="as a network sees them in training")] = False,
) -> None:
    """Make a contact sheet of faces with their landmarks: green where visible, else red."""
    from mtlsearch.faces.packs.pack import open_pack
    from mtlsearch.faces.pictures.contact_sheet import save_image
    from mtlsearch.faces.pictures.preview import pack_sheet

    sheet = pack_sheet(open_pack(folder), split, columns, rows, scale, seed, augmented)
    path = save_image(sheet, output)
    _command.screen().print(f"{path.absolute()}: {sheet.shape[1]}×{sheet.shape[0]} pixels", soft_wrap=True)


VERBS = (render, pack, inspect, export, preview)

if __name__ == "__main__":
    _command.run("data", main, *VERBS)
