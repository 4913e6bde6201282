"""The registry, and what holds for every strategy in it."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import mtlsearch
from mtlsearch import strategies
from mtlsearch.gradients import (
    GramianStrategy,
    LossStrategy,
    RowStrategy,
    get_strategy,
    strategy_info,
)

from .helpers import JACOBIANS, TOLERANCE, combined, jacobian, loss_weights, ready, relative_error

KINDS = {"gramian": GramianStrategy, "rows": RowStrategy, "loss": LossStrategy}
ON_LOSSES = [name for name in strategies() if strategy_info(name).kind == "loss"]
ON_JACOBIANS = [name for name in strategies() if name not in ON_LOSSES] + ["weighted_sum"]
# Weights of a strategy whose result on rows without conflict is their sum, or their mean.
SUMS = ("pcgrad", "gradvac", "weighted_sum", "graddrop", "gradnorm")
MEANS = ("upgrad", "dualproj")


def test_names_are_sorted_and_public() -> None:
    assert strategies() == sorted(strategies())
    assert {"pcgrad", "uncertainty", "weighted_sum"} <= set(strategies())
    assert mtlsearch.strategies is strategies and mtlsearch.get_strategy is get_strategy


@pytest.mark.parametrize("name", strategies())
def test_record_is_consistent(name: str) -> None:
    info = strategy_info(name)
    strategy = get_strategy(name)
    assert info.name == strategy.name == name
    assert isinstance(strategy, info.strategy) and isinstance(strategy, KINDS[info.kind])
    assert info.samples >= 1 and strategy.__doc__
    for hyperparameter in info.hyperparameters:
        assert getattr(strategy, hyperparameter.name) == hyperparameter.default
        assert hyperparameter.description
        for ends in (hyperparameter.search or {}).values():
            for end in ends:
                get_strategy(name, **{hyperparameter.name: end})
    with pytest.raises(AttributeError):
        info.samples = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", strategies())
def test_pickles_and_copies(name: str) -> None:
    for other in (pickle.loads(pickle.dumps(get_strategy(name))), copy.deepcopy(get_strategy(name))):
        assert repr(other) == repr(get_strategy(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ON_JACOBIANS)
class TestOnJacobians:
    def test_keeps_shape_dtype_and_input(self, name: str, dtype: torch.dtype) -> None:
        rows = jacobian("conflicting", 3, dtype)
        before = rows.clone()
        got = combined(name, rows)
        assert got.shape == (rows.shape[1],) and got.dtype == dtype and torch.equal(rows, before)

    def test_one_task_is_its_gradient(self, name: str, dtype: torch.dtype) -> None:
        rows = jacobian("random", 1, dtype)
        got = combined(name, rows)
        assert torch.equal(got, rows[0]) or (strategy_info(name).samples == 3 and torch.allclose(got, rows[0]))
        assert got.data_ptr() != rows.data_ptr()

    @pytest.mark.parametrize("factor", [1e-5, 3.0, 65536.0])
    def test_scale_equivariance_where_flagged(self, name: str, dtype: torch.dtype, factor: float) -> None:
        if not strategy_info(name).scale_equivariant:
            pytest.skip("not flagged")
        rows = jacobian("conflicting", 3, dtype)
        got, expected = combined(name, factor * rows), factor * combined(name, rows)
        assert relative_error(got, expected, factor * rows) <= TOLERANCE[dtype]

    def test_permutation_equivariance_where_flagged(self, name: str, dtype: torch.dtype) -> None:
        if not strategy_info(name).permutation_equivariant:
            pytest.skip("not flagged")
        rows, losses = jacobian("conflicting", 4, dtype), torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=dtype)
        order = [2, 0, 3, 1]
        got, expected = combined(name, rows[order], losses[order]), combined(name, rows, losses)
        assert relative_error(got, expected, rows) <= TOLERANCE[dtype]

    @pytest.mark.parametrize("kind", JACOBIANS)
    def test_is_finite_and_deterministic(self, name: str, dtype: torch.dtype, kind: str) -> None:
        for tasks in (2, 5):
            rows = jacobian(kind, tasks, dtype)
            got = combined(name, rows)
            assert bool(got.isfinite().all()) and torch.equal(got, combined(name, rows))

    def test_rows_on_one_line(self, name: str, dtype: torch.dtype) -> None:
        row = jacobian("random", 1, dtype)[0]
        assert not combined(name, torch.zeros(3, 50, dtype=dtype)).any()
        for factors in ([1, 1, 1], [1, -1], [1, -1, 0], [1, -2, 1, 3], [1e-5, 1, -1e3]):
            rows = torch.tensor(factors, dtype=dtype)[:, None] * row
            got = combined(name, rows)
            # Exact cancellation leaves some weights undetermined, but must not blow the result up.
            assert bool(got.isfinite().all()) and float(got.norm()) <= 10 * float(rows.norm(dim=1).sum())

    def test_state_is_saved_bit_for_bit(self, name: str, dtype: torch.dtype) -> None:
        series = [jacobian("conflicting", 3, dtype, seed=seed) for seed in range(5)]
        losses = 1 + torch.rand(5, 3, dtype=dtype)
        first = ready(name, 3)
        for index in range(3):
            combined(first, series[index], losses[index], index)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = ready(name, 3)
        second.load_state_dict(torch.load(file, weights_only=True))
        forgetful = ready(name, 3)
        differs = False
        for index in range(3, 5):
            got, again, fresh = (combined(s, series[index], losses[index], index) for s in (first, second, forgetful))
            assert torch.equal(got, again)
            differs = differs or not torch.equal(got, fresh)
        # The state matters, or there is none; GradNorm's is used by what trains its weights.
        assert differs == (first.stateful and name != "gradnorm")

    def test_leaves_the_global_generator_alone(self, name: str, dtype: torch.dtype) -> None:
        before = torch.get_rng_state()
        combined(name, jacobian("random", 3, dtype))
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ON_LOSSES)
class TestOnLosses:
    def test_weights_are_finite_and_deterministic(self, name: str) -> None:
        for losses in (torch.rand(4) + 0.1, torch.tensor([1e-6, 1.0, 1e6]), torch.ones(2)):
            got = loss_weights(ready(name, len(losses)), losses)
            assert got.shape == losses.shape and bool(got.isfinite().all())
            assert torch.equal(got, loss_weights(ready(name, len(losses)), losses))

    def test_state_is_saved_bit_for_bit(self, name: str) -> None:
        hyperparameters = {"period": 1} if name == "dwa" else {}
        series = torch.rand(6, 3) + 0.1
        first, second, forgetful = (ready(name, 3, **hyperparameters) for _ in range(3))
        for index in range(4):
            loss_weights(first, series[index], index)
        second.load_state_dict(first.state_dict())
        for index in range(4, 6):
            got, again = (loss_weights(s, series[index], index) for s in (first, second))
            assert torch.equal(got, again)
        assert torch.equal(got, loss_weights(forgetful, series[5], 5)) != first.stateful

    def test_permutation_equivariance_where_flagged(self, name: str) -> None:
        if not strategy_info(name).permutation_equivariant:
            pytest.skip("not flagged")
        losses, order = torch.tensor([1.0, 2.0, 0.5, 3.0]), [2, 0, 3, 1]
        got = loss_weights(ready(name, 4), losses[order])
        torch.testing.assert_close(got, loss_weights(ready(name, 4), losses)[order])


@pytest.mark.parametrize("name", SUMS + MEANS)
def test_no_conflict_gives_the_sum_or_the_mean(name: str) -> None:
    rows = torch.rand(4, 100, dtype=torch.float64)
    expected = rows.sum(0) if name in SUMS else rows.mean(0)
    torch.testing.assert_close(combined(name, rows), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["pcgrad", "gradvac", "weighted_sum"])
def test_two_tasks_commute(name: str) -> None:
    rows = jacobian("conflicting", 2, torch.float64)
    got = get_strategy(name).combine(rows.flip(0))
    assert relative_error(got, get_strategy(name).combine(rows), rows) <= 1e-14


def test_static_weights() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert get_strategy("weighted_sum", weights=[2, 0.5]).combine(rows).tolist() == [2, 0.5]


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("pcgrd", {}, r"unknown strategy 'pcgrd'; did you mean 'pcgrad'\? \(allowed: .*pcgrad.*\)"),
        ("nothing_like_it", {}, r"unknown strategy 'nothing_like_it' \(allowed: "),
        ("pcgrad", {"c": 1}, r"strategy 'pcgrad': 'c' \(allowed: none\)"),
        ("weighted_sum", {"weight": 1}, r"'weight'; did you mean 'weights'\?"),
        ("uncertainty", {"initial_log_variance": 11}, r"<= 10, but got initial_log_variance=11"),
        ("uncertainty", {"initial_log_variance": "0"}, r"a finite number, but got initial_log_variance='0'"),
        ("uncertainty", {"initial_log_variance": float("nan")}, r"a finite number"),
        ("uncertainty", {"initial_log_variance": None}, r"a finite number"),
        ("weighted_sum", {"weights": [1, -1]}, r">= 0, but got weights=\[1, -1\]"),
        ("weighted_sum", {"weights": {"a": "x"}}, r"a finite number"),
    ],
)
def test_errors_say_what_is_allowed(name: str, hyperparameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_strategy(name, **hyperparameters)


@pytest.mark.parametrize("rows", [torch.ones(3), torch.ones(0, 3)])
def test_a_jacobian_has_rows(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be \(T, P\)"):
        get_strategy("pcgrad").combine(rows)


def test_a_loss_strategy_has_no_rule_for_a_jacobian() -> None:
    with pytest.raises(TypeError, match="weighs losses"):
        get_strategy("uncertainty").combine(torch.ones(2, 3))
    with pytest.raises(TypeError, match="float32 or float64"):
        get_strategy("pcgrad").combine(torch.ones(2, 3, dtype=torch.bfloat16))


def test_documentation_names_every_strategy() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    assert [name for name in strategies() if f"| `{name}`" not in text and f", `{name}`" not in text] == []


def test_documented_strategy_works() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    code = text.split("## Adding one")[1].split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {"__name__": __name__}  # dataclasses look their module up
    exec(compile(code, "docs/gradients.md", "exec", dont_inherit=True), namespace)
    rows = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(namespace["Mine"]().combine(rows), torch.tensor([0.6 - 1, 0.8]))
    assert namespace["INFO"].hyperparameters[0].bounds == {"gt": 0}
