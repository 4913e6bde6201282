"""python -m mtlsearch.study: watch a study, ask it for a trial, stop one, look at what it found or would have found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from mtlsearch import _command

if _command.extra_installed():
    from typer import Argument, Option

_FOLDER = "folder of a study, results/NAME"


def main() -> None:
    """Watch a study that runs or has ended, and ask a running one for something.

    \b
    Examples:
      python -m mtlsearch.study status results/STUDY
      python -m mtlsearch.study show results/STUDY 7
      python -m mtlsearch.study add results/STUDY --like 7 --set optimizer.lr=0.01
      python -m mtlsearch.study stop results/STUDY 12
      python -m mtlsearch.study leaderboard results/STUDY --top 10
      python -m mtlsearch.study simulate results/STUDY --early-stopping hyperband --sampler tpe
      python -m mtlsearch.study fetch s3://bucket/studies/STUDY
    """


def status(folder: Annotated[Path, Argument(help=_FOLDER)]) -> None:
    """How far a study is, whether it is being run, and its trials."""
    from mtlsearch.search import tables
    from mtlsearch.search.study.watching import watch

    console = _command.screen()
    seen = watch(folder)
    for line in seen.lines():
        console.print(line, soft_wrap=True)
    console.print(tables.trial_table(seen.plan, seen.trials))
    if not seen.running and not seen.complete:
        console.print(f"\nto go on: {_command.command('tune', '--resume', folder.absolute())}", soft_wrap=True)


def show(
    folder: Annotated[Path, Argument(help=_FOLDER)],
    trial: Annotated[int, Argument(min=0, help="number of a trial")],
) -> None:
    """One trial: its config, its epochs, how it ended."""
    from mtlsearch.search.study.stops import ending
    from mtlsearch.search.study.watching import trial_of, watch
    from mtlsearch.training.progress import epoch_line
    from mtlsearch.training.yaml_files import dump_yaml

    console = _command.screen()
    chosen = trial_of(watch(folder), trial)
    console.print(f"{f'trial {trial} {chosen.label}'.rstrip()}: {ending(chosen)}", soft_wrap=True)
    console.print(dump_yaml(chosen.config))
    for row in chosen.history:
        console.print(epoch_line(row, chosen.config["training"]["epochs"]), soft_wrap=True)


def add(
    folder: Annotated[Path, Argument(help=_FOLDER)],
    like: Annotated[str, Option(help="number of a trial, name of a recipe, or a YAML file to start from")] = "0",
    set_: Annotated[list[str], Option("--set", help="override a key: key.sub=value")] = [],  # noqa: B006
) -> None:
    """Ask a study for a trial, which it runs before those that its sampler draws."""
    from mtlsearch.search.study.watching import add_trial

    console = _command.screen()
    for line in add_trial(folder, like, set_):
        console.print(line, soft_wrap=True)


def stop(
    folder: Annotated[Path, Argument(help=_FOLDER)],
    trial: Annotated[int, Argument(min=0, help="number of a running trial")],
) -> None:
    """Ask a running trial to stop after its epoch."""
    from mtlsearch.search.study.watching import stop_trial

    _command.screen().print(stop_trial(folder, trial), soft_wrap=True)


def leaderboard(
    folder: Annotated[Path, Argument(help=_FOLDER)],
    top: Annotated[int | None, Option(min=1, help="so many of the best")] = None,
) -> None:
    """The trials from best to worst by the first objective, with the options in which they differ."""
    from mtlsearch.search import tables
    from mtlsearch.search.study.study import best_first
    from mtlsearch.search.study.watching import watch

    seen = watch(folder)
    trials = [trial for trial in seen.trials if trial.phase == "search"]
    _command.screen().print(tables.trial_table(seen.plan, best_first(trials, seen.plan)[:top]))


def simulate(
    folder: Annotated[Path, Argument(help=_FOLDER)],
    early_stopping: Annotated[
        str | None, Option(help="a rule, by name or as '{name: asha, grace_epochs: 3}'; the study's own if left out")
    ] = None,
    sampler: Annotated[
        str | None, Option(help="a sampler, by name or as '{name: tpe, startup_trials: 6}'; else the study's order")
    ] = None,
    num_samples: Annotated[int | None, Option(min=1, help="trials; all of the study if left out")] = None,
    budget: Annotated[int | None, Option(min=1, help="epochs of all trials together")] = None,
    workers: Annotated[int | None, Option(min=1, help="trials at one time; as the study ran if left out")] = None,
    seeds: Annotated[int, Option(min=1, help="simulations, where something depends on a seed")] = 20,
    json_: Annotated[bool, Option("--json", help="print JSON, an outcome for each seed")] = False,
) -> None:
    """What a study would have found, spent and wrongly stopped under another rule, sampler or budget.

    Nothing is trained: the study's own trials are taken again, an epoch at a time.
    """
    import json

    from mtlsearch.search.simulation import shown
    from mtlsearch.search.simulation.replay import replay_study

    console = _command.screen()
    replay = replay_study(
        folder,
        early_stopping=_parse("--early-stopping", early_stopping),
        sampler=_parse("--sampler", sampler),
        num_samples=num_samples,
        budget=budget,
        workers=workers,
        seeds=seeds,
    )
    if json_:
        console.print(json.dumps(shown.replay_json(replay), indent=2), soft_wrap=True)
        return
    for line in shown.replay_lines(replay):
        console.print(line, soft_wrap=True)
    console.print(shown.replay_table(replay))


def fetch(
    source: Annotated[str, Argument(help="where the study lies: URI/NAME as tune printed it, or a folder")],
    to: Annotated[Path, Option(help="folder that gets a folder of the study's name")] = Path("results"),
    weights: Annotated[bool, Option("--weights/--no-weights", help="bring checkpoints too")] = True,
) -> None:
    """Bring a study here, a running one too; called again, bring what has changed since."""
    from mtlsearch.search.storage.fetching import fetch as bring

    console = _command.screen()
    fetched = bring(source, to, weights)
    console.print(
        f"{fetched.folder}: {fetched.files} files fetched, {fetched.size / 1e6:.1f} MB; "
        f"{fetched.here} were here already or left out"
    )
    console.print(f"to look at it: {_command.command('study', 'status', fetched.folder)}", soft_wrap=True)


def _parse(option: str, text: str | None) -> Any:
    import yaml

    from mtlsearch.errors import InputError
    from mtlsearch.training.yaml_files import parse_yaml

    try:
        return None if text is None else parse_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{option} {text}: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    _command.run("study", main, status, show, add, stop, leaderboard, simulate, fetch)
