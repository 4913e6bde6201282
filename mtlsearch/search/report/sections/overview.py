"""What was searched, how, and how to do it again."""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import datetime, timezone

from mtlsearch.search.plan.distributions import Options
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.report.section import Section, Table
from mtlsearch.search.report.source import StudyRecord, epochs_of, seconds_of
from mtlsearch.search.study.study import PHASES, Status
from mtlsearch.search.words import duration, number
from mtlsearch.training.record import BEST_RECORD
from mtlsearch.training.schema import Section as Settings

_STATUS: tuple[Status, ...] = ("finished", "stopped", "failed", "running")


def section(study: StudyRecord) -> Section:
    return Section(
        key="overview",
        title="What was searched",
        reading="Check here that this is the study you mean, and whether it ran to its end.",
        warnings=_unfinished(study),
        tables=(_facts(study), _counts(study), _space(study)),
        commands=_commands(study),
    )


def _unfinished(study: StudyRecord) -> list[str]:
    warnings = []
    ended = sum(trial.status != "running" for trial in study.searched)
    if study.ended_by:
        warnings.append(f"The search ended before its {study.settings.num_samples} trials: {study.ended_by}.")
    elif ended < study.settings.num_samples:
        warnings.append(
            f"{ended} of {study.settings.num_samples} trials of the search have ended: this report is of a study that "
            "is still running or was cut short."
        )
    elif study.settings.confirm.seeds and not study.confirmation_whole:
        warnings.append("The confirmation on fresh seeds is missing or not complete.")
    return warnings


def _facts(study: StudyRecord) -> Table:
    settings = study.settings
    seeds = settings.confirm.seeds
    confirmation = f"best {settings.confirm.top} and the baselines on {seeds} fresh seeds" if seeds else "none"
    rows = [
        ("study", study.name),
        ("data", study.data or "not recorded"),
        ("objectives", ", ".join(f"{name} ({mode})" for name, mode in settings.objectives.items())),
        ("sampler", _words(settings.sampler)),
        ("early stopping", _words(settings.early_stopping)),
        *_asked(settings),
        ("baselines", ", ".join(trial.label for trial in study.searched if trial.label) or "none"),
        ("confirmation", confirmation),
        ("began", datetime.fromtimestamp(study.began, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("wall time, less pauses", duration(study.wall_seconds)),
        ("training and validation, all trials together", duration(sum(map(seconds_of, study.trials)))),
    ]
    return Table(("", ""), rows, words=2)


def _asked(settings: SearchSettings) -> list[tuple[str, str]]:
    """What is not said where it is not asked for."""
    limits = settings.constraints.model_dump(exclude_none=True)
    budgets = {"seconds": settings.time_budget_s, "GPU hours": settings.gpu_hours}
    rows = [
        ("constraints", ", ".join(f"{name} {limit}" for name, limit in limits.items())),
        ("budget", ", ".join(f"{limit:g} {name}" for name, limit in budgets.items() if limit is not None)),
    ]
    return [row for row in rows if row[1]]


def _words(settings: Settings) -> str:
    """`{name: asha, grace_epochs: 2}` -> "asha (grace epochs 2)"."""
    values = settings.model_dump(exclude_none=True)
    name = values.pop("name")
    options = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())
    return f"{name} ({options})" if options else str(name)


def _counts(study: StudyRecord) -> Table:
    rows = []
    for phase, words in PHASES.items():
        trials = [trial for trial in study.trials if trial.phase == phase]
        if not trials and phase == "full":
            continue
        count = Counter(trial.status for trial in trials)
        trained, whole = sum(len(trial.history) for trial in trials), sum(map(epochs_of, trials))
        rows.append((words, *(str(count[status]) for status in _STATUS), str(len(trials)), f"{trained} of {whole}"))
    return Table(("trials", *_STATUS, "together", "epochs"), rows)


def _space(study: StudyRecord) -> Table:
    rows = []
    for name, parameter in study.space.parameters():
        if isinstance(parameter, Options):
            rows.append((name, parameter.name, ", ".join(parameter.labels)))
        else:
            low, high = parameter.ends
            rows.append((name, parameter.name, f"{number(low)} to {number(high)}"))
    return Table(("parameter", "distribution", "values"), rows, caption="The space", folded=True, words=3)


def _commands(study: StudyRecord) -> list[tuple[str, str]]:
    def line(name: str, *arguments: str) -> str:
        return " ".join([f"python -m mtlsearch.{name}", *map(shlex.quote, arguments)])

    folder = study.folder.absolute()  # the lines work wherever the reader stands
    commands = [("search the same space again", line("tune", "--space", str(folder / "space.yaml")))]
    if (study.folder / BEST_RECORD).exists():
        commands += [
            ("train the winner again and compare every number", line("reproduce", str(folder / BEST_RECORD))),
            ("train with its configuration", line("train", "--config", str(folder / BEST_RECORD))),
        ]
    return [*commands, ("write this report again", line("report", str(folder)))]
