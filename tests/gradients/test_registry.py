"""The registry, and what holds for every strategy in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mtlsearch
from mtlsearch import strategies
from mtlsearch.gradients import (
    GramianStrategy,
    LossStrategy,
    RowStrategy,
    get_strategy,
    strategy_info,
)
from mtlsearch.testing import checks

from .helpers import combined, jacobian, loss_weights, ready, relative_error

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


def sum_of_rows(jacobian: Tensor) -> Tensor:
    return jacobian.sum(0)


def contract() -> list[Any]:
    """The checks of mtlsearch.testing: every strategy, some with other hyperparameters, and a bare callable."""
    # SDMGrad's default steps on w are so long that rounding grows to another w; shorter ones are held to the bound.
    options: dict[str, dict[str, float]] = {"sdmgrad": {"float32_tolerance": torch.inf}}
    cases = {name: checks(name, **options.get(name, {})) for name in strategies()}
    cases["sdmgrad, lr 0.3"] = checks(lambda: get_strategy("sdmgrad", lr=0.3))
    cases["dwa, period 1"] = checks(lambda: get_strategy("dwa", period=1))
    cases["callable"] = checks(lambda: sum_of_rows, scale_equivariant=True, permutation_equivariant=True)
    return [pytest.param(check, id=f"{name}-{said}") for name, found in cases.items() for said, check in found]


@pytest.mark.parametrize("check", contract())
def test_contract(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("name", [name for name in strategies() if get_strategy(name).stateful])
def test_state_matters(name: str) -> None:
    if name == "gradnorm":
        pytest.skip("its state is used by what trains its weights")
    hyperparameters = {"period": 1} if name == "dwa" else {}
    strategy, forgetful = (ready(name, 3, **hyperparameters) for _ in range(2))
    for index in range(4):
        rows, losses = jacobian("conflicting", 3, torch.float64, seed=index), 0.1 + torch.rand(3, dtype=torch.float64)
        answer = loss_weights if isinstance(strategy, LossStrategy) else partial(combined, rows=rows)
        got = answer(strategy, losses=losses, index=index)
    assert not torch.equal(got, answer(forgetful, losses=losses, index=index))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ON_JACOBIANS)
def test_rows_on_one_line(name: str, dtype: torch.dtype) -> None:
    row = jacobian("random", 1, dtype)[0]
    for factors in ([1, 1, 1], [1, -1], [1, -1, 0], [1, -2, 1, 3], [1e-5, 1, -1e3]):
        rows = torch.tensor(factors, dtype=dtype)[:, None] * row
        # Exact cancellation leaves some weights undetermined, but must not blow the result up.
        assert float(combined(name, rows).norm()) <= 10 * float(rows.norm(dim=1).sum())


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


def test_what_is_no_jacobian_is_refused_with_what_is_one() -> None:
    with pytest.raises(TypeError, match="weighs losses"):
        get_strategy("uncertainty").combine(torch.ones(2, 3))
    with pytest.raises(TypeError, match="float32 or float64"):
        get_strategy("pcgrad").combine(torch.ones(2, 3, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"must be \(T, P\)"):
        get_strategy("pcgrad").combine(torch.ones(3))


def test_documentation_names_every_strategy() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    assert [name for name in strategies() if f"| `{name}`" not in text and f", `{name}`" not in text] == []


def test_documented_strategy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text.split("## Adding one")[1], re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "documented_strategy.py").write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module("documented_strategy")
    rows = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(module.Mine().combine(rows), torch.tensor([0.6 - 1, 0.8]))
    assert module.INFO.hyperparameters[0].bounds == {"gt": 0}
