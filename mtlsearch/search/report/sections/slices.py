"""Each parameter alone against the figures, and whether the winner lies at the edge of what was allowed."""

from __future__ import annotations

from collections import Counter

from mtlsearch.search.plan.distributions import Options, Range
from mtlsearch.search.report.chart import BASELINE, OTHER, WINNER, Axis, Chart, Panel, Points, Symbol, readable_span
from mtlsearch.search.report.section import Section
from mtlsearch.search.report.source import StudyRecord, figure
from mtlsearch.search.study.study import TrialState
from mtlsearch.search.words import number

#: share of a range at either end in which a winner says that the range was too narrow
BOUNDARY = 0.05
#: parameters that are shown, those of most trials first
_SHOWN = 24
#: letters of an option's label on an axis, options that take the page's width, and pixels that each then needs
_LONGEST, _MANY, _OPTION_WIDTH = 22, 8, 26


def section(study: StudyRecord) -> Section:
    count = Counter(name for trial in study.scored for name in trial.point)
    varying = [
        (name, parameter)
        for name, parameter in study.space.parameters()
        if len({trial.point[name] for trial in study.scored if name in trial.point}) > 1
    ]
    shown = sorted(varying, key=lambda item: -count[item[0]])[:_SHOWN]
    objective, mode = study.settings.first_objective
    panels = tuple(_panel(study, name, parameter, objective, mode) for name, parameter in shown)
    notes = [] if panels else ["Nothing varies among the trials with figures."]
    if len(varying) > len(shown):
        notes.append(f"The {len(shown)} parameters that most trials have; {len(varying) - len(shown)} others are not.")
    return Section(
        key="slices",
        title="Slices",
        reading=(
            f"One parameter against {objective}, everything else as the sampler had it: a valley says where to look "
            "next, a cloud without shape that the parameter mattered little; the star is the winner, blue are "
            "baselines, and rings are trials that were stopped."
        ),
        warnings=boundary_warnings(study),
        notes=notes,
        charts=[Chart("slices", f"Slices of {objective}", panels)] if panels else [],
    )


def boundary_warnings(study: StudyRecord) -> list[str]:
    """One line for each range near whose end the winner lies."""
    warnings = []
    for name, parameter in study.space.parameters():
        if study.winner is None or name not in study.winner.point or isinstance(parameter, Options):
            continue
        low, high = parameter.ends
        value = study.winner.point[name]
        place = parameter.position(value)
        if low < high and not BOUNDARY < place < 1 - BOUNDARY:
            end, bound = ("lower", low) if place <= BOUNDARY else ("upper", high)
            warnings.append(
                f"{name}: the winner's {number(value)} lies within {BOUNDARY:.0%} of the {end} end of its range, "
                f"{number(bound)}; something better may lie beyond, so widen the range and search again."
            )
    return warnings


def _panel(study: StudyRecord, name: str, parameter: Range | Options, objective: str, mode: str) -> Panel:
    having = [trial for trial in study.scored if name in trial.point]
    winner = [trial for trial in having if trial is study.winner]
    others = [trial for trial in having if trial is not study.winner]
    groups: tuple[tuple[Symbol, bool, str, list[TrialState]], ...] = (
        ("circle", True, OTHER, [trial for trial in others if trial.status == "stopped"]),
        ("circle", False, OTHER, [trial for trial in others if trial.status != "stopped" and not trial.label]),
        ("circle", False, BASELINE, [trial for trial in others if trial.status != "stopped" and trial.label]),
        ("star", False, WINNER, winner),
    )
    series = tuple(
        Points(
            [_x(parameter, trial.point[name]) for trial in trials],
            [figure(trial, objective) for trial in trials],
            "", color, symbol, hollow, texts=[_text(trial, name) for trial in trials],
        )
        for symbol, hollow, color, trials in groups
        if trials
    )  # fmt: skip
    y = Axis(objective, span=readable_span([figure(trial, objective) for trial in having], mode))
    if isinstance(parameter, Options) and len(parameter.labels) > _MANY:
        return Panel(name, _axis(parameter), y, series, True, 360, least_width=_OPTION_WIDTH * len(parameter.labels))
    return Panel(name, _axis(parameter), y, series)


def _axis(parameter: Range | Options) -> Axis:
    if isinstance(parameter, Options):
        short = (label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…" for label in parameter.labels)
        ticks = tuple((float(place), label) for place, label in enumerate(short))
        return Axis(ticks=ticks, span=(-0.5, len(ticks) - 0.5))
    low, high = parameter.ends
    if parameter.log:
        stretch = (high / low) ** 0.03
        return Axis(log=True, span=(low / stretch, high * stretch))
    margin = 0.03 * (high - low)
    return Axis(span=(low - margin, high + margin))


def _x(parameter: Range | Options, value: float | str) -> float:
    return float(parameter.labels.index(str(value)) if isinstance(parameter, Options) else value)


def _text(trial: TrialState, name: str) -> str:
    value = trial.point[name]
    return f"trial {trial.number} {trial.label}".strip() + f": {value if isinstance(value, str) else number(value)}"
