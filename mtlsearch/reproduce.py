"""python -m mtlsearch.reproduce: train a recorded trial again and compare every number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Exit, Option


def main(
    trial: Annotated[str, Argument(help="best.yaml, a trial's folder or record.yaml, or an MLflow run id")],
    set_: Annotated[list[str], Option("--set", help="change a key of its config: key.sub=value")] = [],  # noqa: B006
    num_workers: Annotated[int, Option(min=1, max=1, help="a run of several workers is repeated by one")] = 1,
    micro_batch: Annotated[
        str | None,
        Option(help="most samples at one time, or 'auto': what a recorded worker took, less where memory runs out"),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        Option(help="MLflow store of a run id (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)"),
    ] = None,
) -> None:
    """Train a recorded trial again, with its seed, threads and number of epochs, and compare every number.

    Exit status 0 when all figures are the same, 1 when they are not: bit for bit, and for a run of another number of
    workers up to the order of sums.

    \b
    Examples:
      python -m mtlsearch.reproduce results/STUDY/best.yaml
      python -m mtlsearch.reproduce results/STUDY/trials/0003
      python -m mtlsearch.reproduce results/STUDY/best.yaml --num-workers 1 --micro-batch auto
      python -m mtlsearch.reproduce 0f3c9e5d7a1b4c2d8e6f0a1b2c3d4e5f
    """
    from mtlsearch.tracking import fetch_artifact, is_run_id, resolve_uri
    from mtlsearch.training import find_record, reproduce
    from mtlsearch.training.progress import epoch_line, progressing
    from mtlsearch.training.record import RECORD

    console = _command.screen()
    portion = _micro_batch(micro_batch)
    path = fetch_artifact(resolve_uri(tracking_uri), trial, RECORD) if is_run_id(trial) else Path(trial)
    record = find_record(path)
    epochs = record.config["training"]["epochs"]

    def report(row: dict[str, float]) -> None:
        console.print(epoch_line(row, epochs), soft_wrap=True)

    with progressing(console, "preparing data") as progress:
        outcome = reproduce(record, set_, report=report, progress=progress, micro_batch=portion)
    for line in outcome.lines():
        console.print(line, soft_wrap=True)
    if not outcome.repeated:
        raise Exit(1)


def _micro_batch(text: str | None) -> int | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        from mtlsearch.errors import InputError

        raise InputError(f"--micro-batch: must be a number of samples from 1 on, or auto, got {text!r}")
    return int(text)


if __name__ == "__main__":
    _command.run("reproduce", main)
