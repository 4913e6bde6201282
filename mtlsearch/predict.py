"""python -m mtlsearch.predict: draw landmarks and head axes on photographs and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Exit, Option


def main(
    inputs: Annotated[list[Path], Argument(help="images (.jpg, .png), videos, or folders of them", metavar="IMAGE…")],
    checkpoint: Annotated[Path, Option(help="winner.safetensors of a study or best.safetensors of a run")],
    box: Annotated[str | None, Option(help="the face, as a detector boxes it: left,top,right,bottom pixels")] = None,
    detector: Annotated[Path | None, Option(help="ONNX file of OpenCV's FaceDetectorYN, to find all faces")] = None,
    output: Annotated[Path, Option(help="folder for pictures and numbers")] = Path("predictions"),
    dense: Annotated[bool, Option("--dense", help="draw the dense points of a system that has them")] = False,
    threads: Annotated[int | None, Option(min=1, help="torch threads (default: all CPUs of this process)")] = None,
) -> None:
    """Draw landmarks and head axes on photographs and videos, and write the numbers as JSON and CSV.

    Without --box or --detector a photograph is taken to show one face that fills it. Red points to the front of the
    face, green down, blue to the side. Exit status 1 where some inputs could not be used; the others are done.

    \b
    Examples:
      python -m mtlsearch.predict face.jpg --checkpoint results/STUDY/winner.safetensors
      python -m mtlsearch.predict photo.jpg --box 120,80,260,240 --checkpoint run/best.safetensors
      python -m mtlsearch.predict photos/ talk.mp4 --detector yunet.onnx --checkpoint run/best.safetensors --output seen
    """
    from mtlsearch.errors import InputError
    from mtlsearch.faces.checkpoints import load_system
    from mtlsearch.faces.prediction.annotating import (
        Annotator,
        Locate,
        by_detector,
        everywhere,
        find_inputs,
        in_box,
        parse_box,
    )
    from mtlsearch.faces.prediction.detecting import FaceDetector
    from mtlsearch.training import environment

    console = _command.screen()
    if box is not None and detector is not None:
        raise InputError("--box and --detector both say where the faces are; give one of them")
    locate: Locate = everywhere
    if box is not None:
        locate = in_box(parse_box(box))
    elif detector is not None:
        locate = by_detector(FaceDetector(detector).detect)
    files = find_inputs(inputs)
    environment.set_threads(threads or environment.available_cpus())
    loaded = load_system(checkpoint)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    annotator = Annotator(loaded.model, loaded.image_size, locate, dense, say)
    if dense and not int(loaded.model.data_shape[2]):
        say("--dense: this system has no dense points; only landmarks and axes are drawn")
    annotator.run(files, output, {"checkpoint": str(checkpoint), "epoch": loaded.epoch})
    console.print(f"\n{annotator.count:,} faces in {output.absolute()}", soft_wrap=True)
    if annotator.faults:
        console.print(f"{annotator.faults} of {len(files)} inputs could not be used", soft_wrap=True)
        raise Exit(1)


if __name__ == "__main__":
    _command.run("predict", main)
