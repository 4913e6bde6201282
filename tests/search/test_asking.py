from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import pytest

from mtlsearch.search import load_plan
from mtlsearch.search.sampling import samplers
from mtlsearch.search.sampling.asking import Asker

pytestmark = pytest.mark.usefixtures("at_root")


def plan(**search: Any) -> Any:
    return load_plan("examples/own_space.yaml", [], search)


def figures(rate: float) -> dict[str, float]:
    """Best at a learning rate of 0.02."""
    error = abs(math.log10(rate) - math.log10(0.02))
    return {"val/frequency_error": error, "val/phase_error": error}


def drawn(count: int, most: int, monkeypatch: pytest.MonkeyPatch, sampler: str = "tpe") -> tuple[list[float], Asker]:
    monkeypatch.setitem(samplers._REMEMBERED, type(plan(sampler=sampler).settings.sampler), most)
    own = plan(sampler=sampler)
    asker, rates, waiting = Asker(own.space, own.settings), [], []
    for _ in range(count):
        asked, tree = asker.ask()
        waiting.append((asked, tree["optimizer"]["lr"]))
        if len(waiting) == 4:  # as trials that run at one time
            for trial, rate in waiting[::-1]:
                asker.tell(trial, figures(rate))
                rates.append(rate)
            waiting = []
    return rates, asker


def test_a_sampler_that_forgets_goes_on_where_it_was_good(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, asker = drawn(320, 100, monkeypatch)
    known = asker._study.get_trials(deepcopy=False)
    assert len(known) <= 125
    best = sorted(rates, key=lambda rate: figures(rate)["val/phase_error"])[:5]
    assert {trial.params["optimizer.lr"] for trial in known} >= set(best)
    late = sorted(figures(rate)["val/phase_error"] for rate in rates[-40:])
    early = sorted(figures(rate)["val/phase_error"] for rate in rates[:40])
    assert late[20] < early[20] / 2, "it still searches where it was good"


def test_the_time_for_a_point_does_not_grow_with_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _, asker = drawn(240, 40, monkeypatch)
    assert len(asker._study.get_trials(deepcopy=False)) <= 50
    started = time.perf_counter()
    for _ in range(5):
        asked, tree = asker.ask()
        asker.tell(asked, figures(tree["optimizer"]["lr"]))
    assert (time.perf_counter() - started) / 5 < 1.0


def test_a_failure_is_no_success() -> None:
    own = plan(sampler="random")
    asker = Asker(own.space, own.settings)
    assert asker.tell(asker.ask()[0], figures(0.01))
    assert not asker.tell(asker.ask()[0], None)
    assert not asker.tell(asker.ask()[0], {"val/frequency_error": 0.1})
    assert not asker.tell(asker.ask()[0], {"val/frequency_error": math.nan, "val/phase_error": 0.1})


def test_the_gaussian_process_says_nothing_on_the_screen() -> None:
    """In a Python of its own, since Optuna says some things once; an option brings a parameter that is not modelled."""
    program = """
from mtlsearch.search import load_plan
from mtlsearch.search.sampling.asking import Asker

plan = load_plan("examples/own_space.yaml", [], {"sampler": {"name": "gp", "startup_trials": 1}})
asker = Asker(plan.space, plan.settings)
for number, schedule in enumerate(["cosine", "onecycle", "onecycle"]):
    point = {"model.width": 32, "strategy": "pcgrad", "optimizer.lr": 0.01 * (number + 1), "schedule": schedule}
    point |= {"schedule.onecycle.pct_start": 0.2} if schedule == "onecycle" else {}
    error = float(schedule == "cosine")
    asker.tell(asker.ask(point)[0], {"val/frequency_error": error, "val/phase_error": error})
drawn = [asker.ask()[0].params for _ in range(2)]
assert any("schedule.onecycle.pct_start" in params for params in drawn), drawn
"""
    done = subprocess.run([sys.executable, "-W", "default", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
