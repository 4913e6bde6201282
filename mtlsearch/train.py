"""python -m mtlsearch.train: train one run config, or a published recipe by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mtlsearch import _command

if _command.extra_installed():
    from typer import Exit, Option


def main(
    config: Annotated[str, Option(help="name of a recipe, or the path of a YAML file (best.yaml too)")] = "quick",
    data: Annotated[Path | None, Option(help="pack of faces to train on, see python -m mtlsearch.data")] = None,
    set_: Annotated[list[str], Option("--set", help="override a key: key.sub=value")] = [],  # noqa: B006
    output: Annotated[
        Path | None,
        Option(help="folder of the run; one with a last.pt is continued (default: under results/)"),
    ] = None,
    threads: Annotated[
        int | None, Option(min=1, help="torch threads of a worker (default: all CPUs of this process, shared out)")
    ] = None,
    num_workers: Annotated[int, Option(min=1, help="processes that train it together, each with a GPU if any")] = 1,
    tracking_uri: Annotated[
        str | None, Option(help="MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    ] = None,
) -> None:
    """Train one run config and keep its best weights, its record and its metrics.

    \b
    Examples:
      python -m mtlsearch.train
      python -m mtlsearch.train --config kim2023 --set data.image_size=120 --set training.epochs=10
      python -m mtlsearch.train --config kim2023 --data packs/300w_lp_3d --set data.test=packs/aflw2000
      python -m mtlsearch.train --config results/STUDY/best.yaml --set seed=1
      python -m mtlsearch.train --config kim2023 --num-workers 4
    """
    from datetime import datetime

    from mtlsearch.tracking import Tracker, resolve_uri
    from mtlsearch.tracking.names import environment_tags
    from mtlsearch.training import TrainingDiverged, load_run_config, run_training
    from mtlsearch.training.folders import new_folder
    from mtlsearch.training.problem import find_problem
    from mtlsearch.training.progress import epoch_line, progressing

    console = _command.screen()
    overrides = set_ if data is None else [_data_override(config, set_, data), *set_]
    run_config = load_run_config(config, overrides)
    uri = resolve_uri(tracking_uri)
    tracker = Tracker(uri, console.print)
    if output is None:
        folder = new_folder(Path("results"), f"train-{Path(config).stem}-{datetime.now():%Y%m%d-%H%M%S}")
    else:
        folder = output
        folder.mkdir(parents=True, exist_ok=True)
    tracked = tracker.start_run(folder.name, {"kind": "training", "seed": run_config.seed})
    tracked.log_parameters(run_config.tree())

    def report(row: dict[str, float]) -> None:
        console.print(epoch_line(row, run_config.training.epochs), soft_wrap=True)
        tracked.log_row(row, step=int(row["epoch"]))

    status = "FAILED"
    try:
        with progressing(console, "preparing data") as progress, progressing(console, "training") as steps:
            on_step = steps if console.is_terminal else None  # elsewhere the epochs' lines are enough
            if num_workers > 1:
                from mtlsearch.search.executors.one_run import train_in_group

                problem = find_problem(run_config.problem)(run_config)
                problem.prepare(progress)
                record = train_in_group(
                    run_config, workers=num_workers, directory=folder, report=report, threads=threads
                )
            else:
                run = run_training(
                    run_config, directory=folder, report=report, progress=progress, on_step=on_step, threads=threads
                )
                problem, record = run.problem, run.record
        tracked.set_tags(environment_tags(record.environment))
        for name in ("record.yaml", "best.safetensors"):
            tracked.log_file(folder / name)
        status = "FINISHED"
    except TrainingDiverged as failure:
        console.print(f"\ntraining stopped: {failure}", soft_wrap=True)
        raise Exit(1) from None
    finally:
        tracked.end(status)
        lost = tracker.close()
        if lost:
            console.print(f"tracker: {lost} entries could not be written; {folder} holds them all")
    trivial = problem.trivial_metrics("val")
    console.print(f"\nbest epoch {int(record.best['epoch'])}; predicting a constant in brackets:")
    for metric, value in record.best.items():
        if metric.startswith("val/"):
            console.print(f"  {metric:<16} {value:8.3f}  ({trivial.get(metric[4:], float('nan')):.3f})")
    console.print(f"\nEverything is in {folder.absolute()}. Next:", soft_wrap=True)
    checkpoint = folder.absolute() / "best.safetensors"
    console.print(f"  {_command.command('evaluate', checkpoint)}", soft_wrap=True)
    console.print(
        f"  {_command.command('reproduce', folder.absolute() / 'record.yaml')}",
        soft_wrap=True,
        highlight=False,
    )


def _data_override(config: str, overrides: list[str], pack: Path) -> str:
    """What --data is short for. InputError for a problem that takes no pack of faces."""
    import json

    from mtlsearch.errors import InputError
    from mtlsearch.faces.problem import FaceProblem
    from mtlsearch.training.config import DEFAULT_PROBLEM
    from mtlsearch.training.problem import find_problem
    from mtlsearch.training.recipes import apply_overrides, recipe_tree

    name = str(apply_overrides(recipe_tree(config), overrides).get("problem", DEFAULT_PROBLEM))
    if not issubclass(find_problem(name), FaceProblem):
        raise InputError(
            f"--data names a pack of faces, and {config} is of the problem {name}; --set sets its own data"
        )
    return f"data={{name: packed, train: {json.dumps(str(pack))}}}"


if __name__ == "__main__":
    _command.run("train", main)
