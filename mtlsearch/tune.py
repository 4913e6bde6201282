"""python -m mtlsearch.tune: search a space, confirm the winner beside its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from mtlsearch import _command
from mtlsearch._imports import importing

if _command.extra_installed():
    from typer import Exit, Option


def main(
    space: Annotated[
        str | None, Option(help="name of a shipped space, or the path of a YAML file (default: quick)")
    ] = None,
    set_: Annotated[list[str], Option("--set", help="override a key of the run config: key.sub=value")] = [],  # noqa: B006
    num_samples: Annotated[int | None, Option(min=1, help="number of trials (default: the space's)")] = None,
    confirm_seeds: Annotated[int | None, Option(min=0, help="fresh seeds for the confirmation; 0 skips it")] = None,
    seed: Annotated[int | None, Option(min=0, help="seed of the sampler")] = None,
    results: Annotated[
        Path | None,
        Option(help="folder that gets a folder for this study (default: results; in a Ray job ~/mtlsearch-results)"),
    ] = None,
    storage_path: Annotated[
        str | None,
        Option(help="where the study is kept beside --results, and the nodes of a cluster meet: s3://bucket/studies"),
    ] = None,
    name: Annotated[str | None, Option(help="name of the study (default: space and time)")] = None,
    resume: Annotated[
        Path | None,
        Option(help="folder or name of a study that goes on, after Ctrl-C, a kill, or to get more trials"),
    ] = None,
    from_study: Annotated[
        Path | None,
        Option(help="folder of an older study, of which the sampler learns what it can (default space: that study's)"),
    ] = None,
    tracking_uri: Annotated[
        str | None, Option(help="MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)")
    ] = None,
    address: Annotated[
        str | None, Option(help="Ray to use: 'local' or an address (default: RAY_ADDRESS, else local)")
    ] = None,
    max_concurrent_trials: Annotated[int | None, Option(min=1, help="trials at one time")] = None,
    executor: Annotated[
        Literal["auto", "inline", "ray_train"],
        Option(
            help="inline: a trial is a process; ray_train: a group of workers, or one with a GPU (default: by that)"
        ),
    ] = "auto",
    cpus_per_trial: Annotated[int | None, Option(min=1, help="CPUs and torch threads of an inline trial")] = None,
    workers_per_trial: Annotated[int, Option(min=1, help="processes that train a trial together")] = 1,
    cpus_per_worker: Annotated[int | None, Option(min=1, help="CPUs and torch threads of a worker")] = None,
    gpus_per_worker: Annotated[
        float | None, Option(min=0, help="GPUs of a worker; 0.25: four share one (default: 1 where there are any)")
    ] = None,
    time_budget_s: Annotated[
        float | None, Option(help="seconds for the search, over all resumptions; the confirmation comes after them")
    ] = None,
    gpu_hours: Annotated[float | None, Option(help="GPU hours for all trials of the search together")] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="check everything, time a few configurations, predict, write nothing")
    ] = False,
    price_per_gpu_hour: Annotated[
        float | None, Option(min=0, help="with --dry-run: what a GPU costs an hour, for a price of the study")
    ] = None,
) -> None:
    """Search a space of run configs and confirm the winner beside its baselines on fresh seeds.

    \b
    Examples:
      python -m mtlsearch.tune
      python -m mtlsearch.tune --space kim2023 --num-samples 64
      python -m mtlsearch.tune --space my_space.yaml --set training.epochs=20 --results /data/studies
      python -m mtlsearch.tune --resume results/quick-20260101-120000
      python -m mtlsearch.tune --name mine --storage-path s3://bucket/studies
      python -m mtlsearch.tune --space full --dry-run --time-budget-s 28800 --price-per-gpu-hour 2.5
    """
    import gc
    import os
    import shlex

    with importing():
        from mtlsearch.errors import InputError
        from mtlsearch.search import load_plan, run_search
        from mtlsearch.search.executors.resources import Demand
        from mtlsearch.search.storage import places
        from mtlsearch.search.storage.fetching import study_to_resume
        from mtlsearch.training.storage import RemoteFolder

    search: dict[str, object] = {}
    if num_samples is not None:
        search["num_samples"] = num_samples
    if confirm_seeds is not None:
        search["confirm"] = {"seeds": confirm_seeds}
    if seed is not None:
        search["seed"] = seed
    if time_budget_s is not None:
        search["time_budget_s"] = time_budget_s
    if gpu_hours is not None:
        search["gpu_hours"] = gpu_hours
    demand = Demand(
        executor, max_concurrent_trials, cpus_per_trial, workers_per_trial, cpus_per_worker, gpus_per_worker
    )
    console = _command.screen()
    if dry_run and resume is not None:
        raise InputError("--dry-run prices a study that has not begun; leave out --resume, and give --space")
    if price_per_gpu_hour is not None and not dry_run:
        raise InputError("--price-per-gpu-hour is for --dry-run")
    results = places.results_folder(results)
    storage = None if storage_path is None else RemoteFolder(storage_path)
    if resume is not None and name is not None:
        raise InputError("--resume: a study that goes on has its name already; leave out --name")
    if resume is not None:
        resume = study_to_resume(resume, results, storage)
    before = resume or from_study
    chosen = space or ("quick" if before is None else str(before / "space.yaml"))
    if dry_run:
        from mtlsearch.search.dry_run.dry_run import dry_run as time_configurations
        from mtlsearch.search.dry_run.page import show
        from mtlsearch.search.preparing import check_storage

        if storage is not None:
            check_storage(storage, console)
        dry = time_configurations(
            load_plan(chosen, set_, search),
            results=results,
            name=name,
            demand=demand,
            price_per_gpu_hour=price_per_gpu_hour,
            console=console,
            from_study=from_study,
        )
        show(dry, console, price_per_gpu_hour)
        gc.unfreeze()  # what `importing` froze is freed at the end; some native code prints what is not
        raise Exit(1 if dry.prediction is None else 0)
    uri = places.tracking_uri(tracking_uri, results)
    if resume is not None and not (resume / "space.yaml").is_file():
        raise InputError(f"--resume: {resume} holds no study")
    if resume is not None and from_study is not None:
        raise InputError("--from-study begins a study and --resume continues one; give one of them")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if places.in_job():
        console.print(f"the working folder of a Ray job is temporary: studies go to {results}", soft_wrap=True)
    console.print(f"ray:     {address}", soft_wrap=True)
    outcome = run_search(
        load_plan(chosen, set_, search),
        results=results,
        resume=resume,
        from_study=from_study,
        storage=storage,
        tracking_uri=uri,
        name=name,
        address=address,
        demand=demand,
        console=console,
    )
    folder = outcome.study.folder.absolute()
    place = storage.join(folder.name) if storage is not None else folder
    again = _command.command("tune", "--resume", folder, *(["--storage-path", storage] if storage is not None else []))
    lines = [f"\nThe study lies in {place}"]
    if storage is not None and storage.uri != str(storage):
        lines.append("For *** give what you gave; keys are better in the environment")
    if storage is not None or places.in_job():
        lines.append(f"To bring it elsewhere: python -m mtlsearch.study fetch {shlex.quote(str(place))}")
    if outcome.interrupted:
        console.print(f"\nInterrupted. What had finished is kept in {folder}. To go on:", soft_wrap=True)
        console.print("\n".join([f"  {again}", *lines]), soft_wrap=True)
        raise Exit(130)
    if outcome.winner is None:
        trials = sorted(outcome.study.trials.values(), key=lambda trial: trial.status != "failed")
        failures = [trial.reason for trial in trials if trial.reason]
        console.print(f"\nNo trial ran to its end. First cause: {failures[0] if failures else 'none started'}")
        console.print("\n".join([f"To go on: {again}", *lines]), soft_wrap=True)
        raise Exit(1)
    console.print(f"\nEverything is in {folder}. Next:", soft_wrap=True)
    for what, line in (
        ("browse the runs", _command.browse(uri)),
        ("repeat the winner", _command.command("reproduce", folder / "best.yaml")),
        ("score its weights", _command.command("evaluate", folder / "winner.safetensors")),
    ):
        console.print(f"  {what + ':':<18} {line}", soft_wrap=True)
    console.print("\n".join(lines), soft_wrap=True)


if __name__ == "__main__":
    _command.run("tune", main)
