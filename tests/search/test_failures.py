"""Trials that fail in every way that trials fail: the study records why, tells the sampler and goes on."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from examples.own_problem import Waves
from mtlsearch.search import load_plan, run_search
from mtlsearch.search.study.journal import read_journal
from mtlsearch.search.study.study import JOURNAL

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("at_root", "shared_ray"),
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

#: width of the model -> what becomes of its trial
WIDTHS = {8: "trains", 9: "raises", 10: "out of memory", 11: "worker killed", 12: "not a number", 13: "short once"}


class FailingWaves(Waves):
    batches = 0

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        fate = WIDTHS[self.config.model.width]
        if fate == "raises":
            raise ZeroDivisionError("no such thing")
        if fate == "out of memory":
            raise torch.OutOfMemoryError("tried to allocate 1 TiB")
        self.batches += 1
        if fate == "short once" and self.batches == 15 and not (Path(os.environ["MTLSEARCH_CACHE"]) / "short").exists():
            (Path(os.environ["MTLSEARCH_CACHE"]) / "short").touch()
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        if fate == "worker killed":
            os.kill(os.getpid(), signal.SIGKILL)
        signals, targets = super().batch(indices, generator)
        return (signals * float("nan"), targets) if fate == "not a number" else (signals, targets)


def test_every_failure_is_recorded_with_its_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    screen = io.StringIO()
    overrides = [
        "problem=tests.search.test_failures:FailingWaves",
        "model={width: {grid: [8, 9, 10, 11, 12, 13]}}",
        "strategy={name: pcgrad}",
        "optimizer={lr: 0.01}",
        "schedule={name: cosine}",
        "training.epochs=2",
    ]
    settings = {"sampler": "grid", "start_with": [], "confirm": {"seeds": 0}, "early_stopping": "none"}
    outcome = run_search(
        load_plan("examples/own_space.yaml", overrides, settings),
        results=tmp_path / "results",
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        console=Console(file=screen, width=200, markup=False),
    )
    assert not outcome.interrupted
    trials = {WIDTHS[trial.config["model"]["width"]]: trial for trial in outcome.study.trials.values()}
    assert outcome.winner in (trials["trains"], trials["short once"])
    reasons = {
        WIDTHS[t.config["model"]["width"]]: t.reason for t in outcome.study.trials.values() if t.status == "failed"
    }
    assert reasons["raises"] == "ZeroDivisionError: no such thing"
    alone = "ran out of memory beside 1 other, then trained alone"
    assert reasons["out of memory"] == f"OutOfMemoryError: tried to allocate 1 TiB; {alone}"
    assert (trials["short once"].status, trials["short once"].reason) == ("finished", alone)
    assert [row["epoch"] for row in trials["short once"].history] == [1, 2], "it went on from its checkpoint"
    postponed = [one for one in read_journal(outcome.study.folder / JOURNAL) if one["event"] == "postponed"]
    assert len(postponed) == 2, "once each"
    assert "became nan" in reasons["not a number"]
    assert "worker" in reasons["worker killed"] and "died" in reasons["worker killed"]
    assert all(len(reason) < 300 for reason in reasons.values())
    page = (outcome.study.folder / "report.html").read_text()
    assert "4 of 6 trials failed" in page
    assert "no such thing" in page


def test_when_all_fail_the_study_ends_early_and_says_why(tmp_path: Path) -> None:
    screen = io.StringIO()
    overrides = ["problem=tests.search.test_failures:FailingWaves", "model={width: 9}"]
    outcome = run_search(
        load_plan("examples/own_space.yaml", overrides, {"num_samples": 50, "start_with": [], "confirm": {"seeds": 0}}),
        results=tmp_path / "results",
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        console=Console(file=screen, width=200, markup=False),
    )
    assert outcome.winner is None and not outcome.interrupted
    assert 5 <= len(outcome.study.trials) <= 8, "five, and those that were running beside the fifth"
    assert "trials all failed" in screen.getvalue()
