"""python -m mtlsearch.evaluate: score a checkpoint, of faces in the papers' layout beside the papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option

if TYPE_CHECKING:
    from mtlsearch.faces.config import FaceRunConfig
    from mtlsearch.faces.evaluation.scored_data import ScoredData


def main(
    checkpoint: Annotated[Path, Argument(help="winner.safetensors of a study or best.safetensors of a run")],
    split: Annotated[str, Option(help="train, val or test")] = "test",
    data: Annotated[str | None, Option(help="score on a published data set: its name, see docs/data.md")] = None,
    root: Annotated[Path | None, Option(help="folder that holds it (also below MTLSEARCH_DATA)")] = None,
    basis: Annotated[Path | None, Option(help="folder of the 68-point basis, for data sets that need it")] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave out what of it is damaged or missing")] = False,
    pack: Annotated[Path | None, Option(help="score on a pack that `mtlsearch.data` made")] = None,
    figures: Annotated[Path | None, Option(help="folder for curves, sheets of faces and every image's errors")] = None,
    set_: Annotated[list[str], Option("--set", help="override a key of its config: key.sub=value")] = [],  # noqa: B006
    threads: Annotated[int | None, Option(min=1, help="torch threads (default: all CPUs of this process)")] = None,
) -> None:
    """Score a checkpoint with every metric of its problem, beside predicting a constant.

    Of faces the papers' table is printed, beside what the papers print; figures of other data stand apart. Without
    --data or --pack the run's own data are used.

    \b
    Examples:
      python -m mtlsearch.evaluate results/STUDY/winner.safetensors
      python -m mtlsearch.evaluate results/STUDY/winner.safetensors --split val
      python -m mtlsearch.evaluate run/best.safetensors --data aflw2000 --root AFLW2000 --figures seen
      python -m mtlsearch.evaluate run/best.safetensors --pack packs/aflw2000
    """
    from mtlsearch.errors import InputError, unknown_name
    from mtlsearch.faces.evaluation.scored_data import ScoredData, config_of
    from mtlsearch.training import environment
    from mtlsearch.training.evaluation import SPLITS

    if split not in SPLITS:
        raise InputError(f"--split: {unknown_name('split', split, SPLITS)}")
    where = ScoredData(data, root, basis, skip_bad, pack)
    config = config_of(checkpoint, set_)
    if config is None:
        if where.given or figures is not None:
            raise InputError(f"--data, --pack and --figures are for faces, and {checkpoint} is of another problem")
        return _other(checkpoint, split, set_, threads)
    environment.set_threads(threads or environment.available_cpus())
    return _faces(checkpoint, config, split, where, figures)


def _faces(checkpoint: Path, config: FaceRunConfig, split: str, where: ScoredData, figures: Path | None) -> None:
    """The papers' table, every metric, what the network costs, and the figures."""
    from mtlsearch.faces.checkpoints import load_system
    from mtlsearch.faces.evaluation.checkpoint_evaluation import evaluate_system
    from mtlsearch.faces.evaluation.figures import check_figures, save_figures
    from mtlsearch.faces.evaluation.scoreboard import cost_lines, metrics_table, scoreboard
    from mtlsearch.training.loop import choose_device
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    if figures is not None:
        check_figures(figures)
    loaded = load_system(checkpoint, choose_device(config.training.device))
    size = loaded.image_size
    with progressing(console, "preparing data") as progress:
        pack, mean_of = where.open(config, split, size, progress)
        evaluation = evaluate_system(loaded, pack, split, mean_of)
    if figures is not None:
        save_figures(evaluation, pack, size, figures, {"checkpoint": str(checkpoint), "epoch": loaded.epoch})
    console.print(f"{checkpoint}, epoch {loaded.epoch}: system {config.system}, input {size}×{size}\n", soft_wrap=True)
    for part in (*scoreboard(evaluation), metrics_table(evaluation)):
        console.print(part, soft_wrap=isinstance(part, str))
        console.print()
    for line in cost_lines(evaluation):
        console.print(line, soft_wrap=True)
    if figures is not None:
        console.print(f"\nfigures and every image's errors: {figures.absolute()}", soft_wrap=True)


def _other(checkpoint: Path, split: str, overrides: list[str], threads: int | None) -> None:
    """A problem that is not of faces: its metrics beside the constant prediction."""
    from mtlsearch.training import evaluate_checkpoint
    from mtlsearch.training.progress import progressing

    console = _command.screen()
    with progressing(console, "preparing data") as progress:
        scores = evaluate_checkpoint(checkpoint, split, overrides=overrides, threads=threads, progress=progress)
    console.print(f"{checkpoint}, epoch {scores.epoch}, on the {split} split of {scores.data}", soft_wrap=True)
    console.print(f"{scores.parameters:,} parameters\n")
    console.print(scores.table())


if __name__ == "__main__":
    _command.run("evaluate", main)
