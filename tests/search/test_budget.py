from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtlsearch.errors import InputError
from mtlsearch.search import SearchOutcome, load_plan, read_trials, run_search
from mtlsearch.search.executors.resources import Demand
from mtlsearch.search.plan.settings import SearchSettings
from mtlsearch.search.study.budget import Budget, Usage, check_budget
from mtlsearch.search.study.study import Study

SETTINGS: dict[str, Any] = {"objectives": {"val/x": "min"}}


def usage_of(*events: tuple[str, float, dict[str, Any]]) -> Usage:
    usage = Usage()
    for kind, moment, fields in events:
        usage.see({"event": kind, "time": moment, **fields})
    return usage


def trial(number: int, phase: str = "search") -> dict[str, Any]:
    return {"number": number, "phase": phase}


HISTORY = (
    ("study", 0.0, {}),
    ("search", 1.0, {"gpus": 0.5}),
    ("trial", 2.0, trial(0)),
    ("trial", 3.0, trial(1)),
    ("epoch", 5.0, {"number": 0}),
    ("end", 7.0, {"number": 0}),
    # killed, and an hour later on a machine where a trial gets a GPU of its own
    ("resumed", 3600.0, {}),
    ("search", 3605.0, {"gpus": 1.0}),
    ("epoch", 3608.0, {"number": 1}),
    ("end", 3610.0, {"number": 1}),
    ("trial", 3611.0, trial(2, "confirm")),
    ("end", 3700.0, {"number": 2}),
)


def test_search_phases_count_and_pauses_and_confirmations_do_not() -> None:
    seconds, gpu_seconds = usage_of(*HISTORY).until(5000.0)
    assert seconds == (7 - 1) + (3610 - 3605)
    # trial 0 from 2 to 7 and trial 1 from 3 to 7 at half a GPU, trial 1 from 3605 to 3610 at a whole one
    assert gpu_seconds == (5 + 4) * 0.5 + 5


def test_a_trial_that_waits_to_be_trained_alone_uses_no_gpu() -> None:
    begun = (("study", 0.0, {}), ("search", 1.0, {"gpus": 0.5}), ("trial", 2.0, trial(0)), ("trial", 2.0, trial(1)))
    waiting = ("postponed", 4.0, {"number": 0, "why": "ran out of memory at 0.5 GPU"})
    assert usage_of(*begun, waiting).until(10.0) == (9.0, (2 + 2) * 0.5 + 6 * 0.5)


def test_what_runs_counts_up_to_now() -> None:
    usage = usage_of(*HISTORY[:5])
    assert usage.until(6.0) == (5.0, (4 + 3) * 0.5)
    settings = SearchSettings(**SETTINGS, time_budget_s=10, gpu_hours=5 / 3600)
    assert Budget(settings, usage, lambda: 6.0).out_of == ""
    assert Budget(settings, usage, lambda: 8.0).out_of == "GPU hours"
    assert Budget(settings, usage, lambda: 11.0).used_up == "its 10.0 s are used up"


def test_gpu_hours_need_a_gpu() -> None:
    settings = SearchSettings(**SETTINGS, gpu_hours=2)
    check_budget(settings, gpus=0.5)
    with pytest.raises(InputError, match="sees no GPU here; limit the search with --time-budget-s"):
        check_budget(settings, gpus=0.0)


def search(folder: Path, resume: Path | None = None, **settings: Any) -> tuple[SearchOutcome, str]:
    screen = io.StringIO()
    space = "examples/own_space.yaml" if resume is None else str(resume / "space.yaml")
    outcome = run_search(
        load_plan(space, ["training.epochs=2000"], {**settings, "confirm": {"seeds": 0}, "report": False}),
        results=folder,
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        name=None if resume else "study",
        resume=resume,
        demand=Demand(concurrent=2),
        console=Console(file=screen, width=200, markup=False),
    )
    return outcome, screen.getvalue()


@pytest.mark.ray
@pytest.mark.usefixtures("at_root", "shared_ray")
@pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning")
def test_a_search_ends_with_its_time_and_goes_on_with_more(tmp_path: Path) -> None:
    outcome, screen = search(tmp_path, time_budget_s=2, early_stopping="none")
    study = tmp_path / "study"
    trials = read_trials(study)
    assert 1 <= len(trials) < 8
    assert all(one.reason == f"out of time after epoch {len(one.history)}" for one in trials)
    assert "the search ended before its 8 trials: its 2.0 s are used up" in screen
    assert outcome.winner is None, "none ran to its end"
    assert not outcome.interrupted

    # under way when it was killed: with nothing left it does not go on
    with_open = Study.reopen(study, load_plan(str(study / "space.yaml")))
    with_open.add_trial("search", "", trials[-1].config, trials[-1].point)
    with_open.close()
    outcome, _ = search(tmp_path, study)
    assert read_trials(study)[len(trials) :][0].reason == "out of time after epoch 0"
    assert len(read_trials(study)) == len(trials) + 1

    used, _ = outcome.study.usage.until(0.0)
    search(tmp_path, study, time_budget_s=used + 3)
    more = read_trials(study)[len(trials) + 1 :]
    assert more, "with more time the study goes on"
    assert all(one.reason == f"out of time after epoch {len(one.history)}" for one in more)
