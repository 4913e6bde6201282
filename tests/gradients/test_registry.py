"""The registry, and what holds for every strategy in it."""

from __future__ import annotations

import copy
import pickle

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

from .helpers import TOLERANCE, jacobian, relative_error

KINDS = {"gramian": GramianStrategy, "rows": RowStrategy, "loss": LossStrategy}
ON_JACOBIANS = [name for name in strategies() if strategy_info(name).kind != "loss"] + ["weighted_sum"]


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
        got = get_strategy(name).combine(rows)
        assert got.shape == (rows.shape[1],) and got.dtype == dtype and torch.equal(rows, before)

    def test_one_task_is_its_gradient(self, name: str, dtype: torch.dtype) -> None:
        rows = jacobian("random", 1, dtype)
        got = get_strategy(name).combine(rows)
        assert torch.equal(got, rows[0]) and got.data_ptr() != rows.data_ptr()

    @pytest.mark.parametrize("factor", [1e-5, 3.0, 65536.0])
    def test_scale_equivariance_where_flagged(self, name: str, dtype: torch.dtype, factor: float) -> None:
        if not strategy_info(name).scale_equivariant:
            pytest.skip("not flagged")
        rows = jacobian("conflicting", 3, dtype)
        got, expected = get_strategy(name).combine(factor * rows), factor * get_strategy(name).combine(rows)
        assert relative_error(got, expected, factor * rows) <= TOLERANCE[dtype]

    def test_is_deterministic(self, name: str, dtype: torch.dtype) -> None:
        rows = jacobian("conflicting", 4, dtype)
        assert torch.equal(get_strategy(name).combine(rows), get_strategy(name).combine(rows))


@pytest.mark.parametrize("name", ["pcgrad", "weighted_sum"])
def test_no_conflict_gives_the_sum(name: str) -> None:
    rows = torch.rand(4, 100, dtype=torch.float64)
    torch.testing.assert_close(get_strategy(name).combine(rows), rows.sum(0), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["pcgrad", "weighted_sum"])
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
