from __future__ import annotations

import math

import pytest
import torch

from mtlsearch.gradients import Diagnostics, MultiTaskOptimizer
from mtlsearch.training import load_run_config, run_training
from mtlsearch.training.conflicts import Conflicts, pair_of
from mtlsearch.training.record import compare_histories

CONFIG = "examples/own_problem.yaml"


def gramian(*cosines: float) -> torch.Tensor:
    """Of two or three gradients of norms 1, 2, 3 with these cosines: of (0, 1), (0, 2), (1, 2)."""
    size = 2 if len(cosines) == 1 else 3
    norms = torch.arange(1.0, size + 1, dtype=torch.float64)
    matrix = torch.eye(size, dtype=torch.float64)
    for (i, j), value in zip([(0, 1), (0, 2), (1, 2)], cosines):
        matrix[i, j] = matrix[j, i] = value
    return matrix * torch.outer(norms, norms)


def test_the_row_holds_means_over_the_steps_that_saw_the_pair() -> None:
    seen = Conflicts()
    seen.see(Diagnostics(("a", "b", "c"), None, gramian(-0.5, 0.25, 1.0)))
    seen.see(Diagnostics(("a", "b", "c"), None, gramian(-0.1, 0.75, 0.0)))
    seen.see(Diagnostics(("a", "c"), None, gramian(-1.0)))
    seen.see(Diagnostics(("a", "b", "c")))  # a step that looked at no gradients
    row = seen.row()
    assert row == pytest.approx({"conflict/a/b": -0.3, "conflict/a/c": 0.0, "conflict/b/c": 0.5})
    assert [pair_of(key) for key in row] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_step_that_overflowed_does_not_count() -> None:
    seen = Conflicts()
    seen.see(Diagnostics(("a", "b"), None, gramian(0.5)))
    seen.see(Diagnostics(("a", "b"), None, torch.full((2, 2), math.nan, dtype=torch.float64)))
    assert seen.row() == pytest.approx({"conflict/a/b": 0.5})


@pytest.mark.usefixtures("at_root")
def test_rows_hold_conflicts_where_the_strategy_sees_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[float] = []
    combine = MultiTaskOptimizer.combine

    def noting(self: MultiTaskOptimizer) -> None:
        combine(self)
        if self.diagnostics.gramian is not None:
            values.append(float(self.diagnostics.cosines[0, 1]))

    monkeypatch.setattr(MultiTaskOptimizer, "combine", noting)
    first, _ = run_training(load_run_config(CONFIG, ["training.epochs=2"]), threads=1).result.history
    names = [key for key in first if key.startswith("conflict/")]
    assert names == ["conflict/frequency/phase"]
    assert first[names[0]] == pytest.approx(sum(values[: len(values) // 2]) / (len(values) // 2))
    plain = run_training(load_run_config(CONFIG, ["training.epochs=1", "strategy.name=weighted_sum"]), threads=1)
    assert not [key for key in plain.result.history[0] if key.startswith("conflict/")]


def test_a_record_from_before_a_metric_still_repeats() -> None:
    old = {"epoch": 1.0, "val/nme": 3.0}
    assert compare_histories([old], [{**old, "conflict/a/b": 0.5}]) == []
    assert compare_histories([{**old, "conflict/a/b": 0.5}], [old]) == ["epoch 1 conflict/a/b: 0.5 -> nan"]
