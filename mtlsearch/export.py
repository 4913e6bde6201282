"""python -m mtlsearch.export: a checkpoint as an ONNX file, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option


def main(
    checkpoint: Annotated[Path, Argument(help="winner.safetensors of a study or best.safetensors of a run")],
    output: Annotated[Path | None, Option(help="file to write (default: beside the checkpoint, as .onnx)")] = None,
    threads: Annotated[int | None, Option(min=1, help="threads of both (default: all CPUs of this process)")] = None,
) -> None:
    """Write a checkpoint as ONNX: normalised crops in, landmarks in pixels and angles in degrees out, any batch size.

    The file appears only when ONNX Runtime agrees with PyTorch; its metadata says how to make its input.

    \b
    Examples:
      python -m mtlsearch.export results/STUDY/winner.safetensors
      python -m mtlsearch.export run/best.safetensors --output face.onnx --threads 1
    """
    from mtlsearch import __version__
    from mtlsearch.errors import InputError
    from mtlsearch.faces.checkpoints import load_system
    from mtlsearch.faces.onnx_export import OPSET, export_onnx
    from mtlsearch.training import environment

    console = _command.screen()
    path = checkpoint.with_suffix(".onnx") if output is None else output
    if path.resolve() == checkpoint.resolve():
        raise InputError(f"--output: {path} is the checkpoint itself; name another file")
    count = threads or environment.available_cpus()
    environment.set_threads(count)
    loaded = load_system(checkpoint)
    facts = {
        "mtlsearch": __version__,
        "system": loaded.config.system,
        "epoch": loaded.epoch,
        "data": loaded.config.data.name,
        "metrics": {name: value for name, value in loaded.metrics.items() if name.startswith("val/")},
    }
    made = export_onnx(loaded.model, loaded.image_size, path, facts, count)
    console.print(f"{made.path.absolute()}: {made.bytes / 1e6:.1f} MB, opset {OPSET}", soft_wrap=True)
    console.print("\nlargest difference from PyTorch")
    for found in made.differences:
        console.print(f"  {found.images}, batch {found.batch}: {found.pixels:.2e} pixels, {found.degrees:.2e}°")
    milliseconds = [f"{1000 * seconds:.2f} ms" for seconds in (made.seconds_onnx, made.seconds_torch)]
    console.print(
        f"\none image: ONNX Runtime {milliseconds[0]}, PyTorch {milliseconds[1]} "
        f"(medians, {made.threads} {'thread' if made.threads == 1 else 'threads'} each)"
    )


if __name__ == "__main__":
    _command.run("export", main)
