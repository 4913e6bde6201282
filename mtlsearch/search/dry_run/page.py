"""A dry run on the screen: the space, the configurations that were timed, what a study will take, what is assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mtlsearch.search.dry_run.drawing import DRAWN
from mtlsearch.search.dry_run.dry_run import HEADROOM, DryRun, Timed
from mtlsearch.search.executors.gpu_sharing import advice
from mtlsearch.search.plan.distributions import Options
from mtlsearch.search.plan.settings import NoEarlyStopping
from mtlsearch.search.plan.space import Space
from mtlsearch.search.words import duration, number
from mtlsearch.training.merge import flatten


def show(dry: DryRun, console: Console, price_per_gpu_hour: float | None = None) -> None:
    """Prints all of it."""

    def say(text: str = "") -> None:
        console.print(text, soft_wrap=True)

    say(f"\nThe space {dry.plan.name}:")
    for line in space_lines(dry.plan.space):
        say(f"  {line}")
    say()
    console.print(_configurations(dry))
    for one in dry.timed + dry.full:
        if one.fault:
            say(f"{one.name} cannot be trained: {one.fault}")
    if len(dry.sampled) < dry.wanted:
        say(f"of {DRAWN} draws the constraints admit {len(dry.sampled)}")
    say()
    if dry.prediction is None:
        say("No configuration could be trained, so nothing can be predicted.")
        return
    console.print(_phases(dry))
    for line in [*_budget(dry), *_money(dry, price_per_gpu_hour), *_resources(dry)]:
        say(line)
    say("Assumed:")
    for line in _assumed(dry):
        say(f"  {line}")


def space_lines(space: Space) -> Iterator[str]:
    """Every parameter with its distribution, under the option of a choice that it hangs on, and how many points."""
    parents: list[str] = []
    count = 0
    for name, parameter in space.parameters():
        while parents and not name.startswith(f"{parents[-1]}."):
            parents.pop()
        # the option stands in the name, after the choice: "losses.landmarks.wing.w"
        own = name[len(parents[-1]) + 1 :] if parents else name
        if isinstance(parameter, Options):
            what = f"{parameter.name} of {len(parameter.labels)}: {', '.join(parameter.labels)}"
        else:
            low, high = parameter.ends
            what = f"{parameter.name} from {_end(low)} to {_end(high)}"
        yield f"{'    ' * len(parents)}{own}  {what}"
        count += 1
        if isinstance(parameter, Options):
            parents.append(name)
    size, choices = space.size(), space.size(ranges=False)
    points = f"{size:,.0f} points" if math.isfinite(size) else f"{choices:,.0f} combinations of choices, and ranges"
    yield f"{count} parameters; {points}"


def _configurations(dry: DryRun) -> Table:
    """A column for each configuration: the keys in which they differ, then what it costs."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    shown = dry.timed + dry.full
    for one in shown:
        table.add_column(one.name, overflow="fold")
    flat = [flatten(one.config.tree()) for one in shown]
    for key in sorted({key for tree in flat for key in tree}):
        values = [tree.get(key, "") for tree in flat]
        if any(value != values[0] for value in values):
            table.add_row(key, *map(_word, values))
    table.add_section()
    for heading, cells in _costs(shown):
        table.add_row(heading, *cells, style="bold")
    return table


def _costs(shown: Sequence[Timed]) -> Iterator[tuple[str, list[str]]]:
    costs = [one.cost for one in shown]
    for heading, cell in (
        ("a step", lambda cost: _seconds(cost.whole.step_s)),
        ("an epoch", lambda cost: _seconds(cost.whole.seconds)),
        ("whole training", lambda cost: _seconds(cost.training_s())),
        ("memory", lambda cost: _bytes(cost.memory)),
    ):
        yield heading, ["–" if cost is None else cell(cost) for cost in costs]
    if any(cost is not None and cost.gpu_memory for cost in costs):
        yield "memory of a GPU", ["–" if cost is None else _bytes(cost.gpu_memory) for cost in costs]


def _phases(dry: DryRun) -> Table:
    prediction, settings = dry.prediction, dry.plan.settings
    assert prediction is not None
    stopping = not isinstance(settings.early_stopping, NoEarlyStopping)
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column(f"with {settings.early_stopping.name}" if stopping else "", justify="right")
    if stopping:
        table.add_column("without early stopping", justify="right")

    def row(what: str, expected: float, most: float) -> None:
        table.add_row(what, _seconds(expected), *([_seconds(most)] if stopping else []))

    if dry.data_s:
        row("data, once", dry.data_s, dry.data_s)
    row("a sampled trial, on average", prediction.trial_s, prediction.whole_trial_s)
    row(f"the search, {settings.num_samples} trials", prediction.search_s, prediction.whole_search_s)
    if settings.confirm.seeds:
        row(f"confirmation, {settings.confirm.seeds} seeds", prediction.confirm_s, prediction.confirm_s)
    if settings.proxy is not None:
        row("at full size", prediction.full_s, prediction.full_s)
    row("together", prediction.study_s + dry.data_s, prediction.most_s + dry.data_s)
    return table


def _budget(dry: DryRun) -> Iterator[str]:
    prediction, settings = dry.prediction, dry.plan.settings
    assert prediction is not None
    if prediction.affordable is not None and prediction.affordable_whole is not None:
        given = {"time_budget_s": "s", "gpu_hours": "GPU hours"}
        limits = " and ".join(
            f"{getattr(settings, key):g} {unit}" for key, unit in given.items() if getattr(settings, key) is not None
        )
        begun, ended = prediction.affordable
        line = f"In {limits} about {begun} of the {settings.num_samples} trials begin and {ended} end"
        if not isinstance(settings.early_stopping, NoEarlyStopping):
            begun, ended = prediction.affordable_whole
            line += f"; without early stopping {begun} and {ended}"
        yield f"{line}."


def _money(dry: DryRun, price_per_gpu_hour: float | None) -> Iterator[str]:
    if price_per_gpu_hour is not None:
        expected, most = dry.money(price_per_gpu_hour)
        yield f"Money: {expected:.2f}, at most {most:.2f}, for {dry.gpus} GPUs at {price_per_gpu_hour:g} an hour."


def _resources(dry: DryRun) -> Iterator[str]:
    resources, suggested = dry.resources, dry.suggested
    gpu = f" and {resources.gpus:.2g} GPU" if resources.gpus else ""
    yield f"The search would train {resources.concurrent} trials at a time, each with {resources.cpus} CPU{gpu}."
    share = f", {suggested.gpus:.2g} GPU each" if suggested.gpus else ""
    yield (
        f"By the memory measured, with {HEADROOM - 1:.0%} head-room, and {resources.total} CPUs: "
        f"--max-concurrent-trials {suggested.concurrent} --cpus-per-trial {suggested.cpus}{share}."
    )
    if resources.gpus and dry.trial_gpu_bytes:
        yield f"On a GPU, with the same head-room: {advice(dry.trial_gpu_bytes, dry.gpu_bytes, resources.gpus)}."


def _assumed(dry: DryRun) -> Iterator[str]:
    prediction = dry.prediction
    assert prediction is not None
    yield (
        f"Each configuration was timed for three steps or more after one, {dry.at_once} at a time, and validation in "
        "proportion to the split's size; sampled trials are like those timed, in equal shares."
    )
    if any(one.fault for one in dry.timed + dry.full):
        yield "Those that cannot be trained are as if they were not there."
    if not isinstance(dry.plan.settings.early_stopping, NoEarlyStopping):
        yield (
            f"Early stopping leaves {prediction.share:.0%} of their epochs, as it does where every trial is as likely "
            "as another to be among the best."
        )
    if dry.gpus:
        yield "Trials that share a GPU take as long as one after the other."
    yield "The start of Ray, tracking and the report are not in it, nor what else the machine does meanwhile."


def _end(value: float) -> str:
    return number(value) if isinstance(value, int) else f"{value:g}"


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
