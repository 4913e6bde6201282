"""python -m mtlsearch.evaluate: score a checkpoint on a split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option


def main(
    checkpoint: Annotated[Path, Argument(help="winner.safetensors of a study or best.safetensors of a run")],
    split: Annotated[str, Option(help="train, val or test")] = "test",
    set_: Annotated[list[str], Option("--set", help="override a key of its config: key.sub=value")] = [],  # noqa: B006
    threads: Annotated[int | None, Option(min=1, help="torch threads (default: all CPUs of this process)")] = None,
) -> None:
    """Score a checkpoint with every metric of its problem, beside predicting the training split's mean.

    \b
    Examples:
      python -m mtlsearch.evaluate results/STUDY/winner.safetensors
      python -m mtlsearch.evaluate results/STUDY/winner.safetensors --split val
    """
    from mtlsearch.training import evaluate_checkpoint
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    with progressing(console, "preparing data") as progress:
        scores = evaluate_checkpoint(checkpoint, split, overrides=set_, threads=threads, progress=progress)
    console.print(f"{checkpoint}, epoch {scores.epoch}, on the {split} split of {scores.data}", soft_wrap=True)
    console.print(f"{scores.parameters:,} parameters\n")
    console.print(scores.table())


if __name__ == "__main__":
    _command.run("evaluate", main)
