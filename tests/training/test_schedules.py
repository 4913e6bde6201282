from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mtlsearch.training.schedules import Constant, Cosine, MultiStep, OneCycle, Poly, total_steps

STEPS = 80


def learning_rates(schedule: object, steps: int = STEPS, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = schedule.build(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_kim_2023_schedule_epoch_by_epoch() -> None:
    """1e-5 rising to 5e-4 by epoch 5, a fifth of the peak from epoch 40, a 25th from epoch 50."""
    schedule = MultiStep(warmup=0.0625, warmup_factor=0.02, milestones=[0.5, 0.625], gamma=0.2)
    rates = learning_rates(schedule, lr=5e-4)
    assert rates[0] == pytest.approx(1e-5)
    assert all(low < high for low, high in pairwise(rates[:6]))
    assert rates[5:40] == pytest.approx([5e-4] * 35)
    assert rates[40:50] == pytest.approx([1e-4] * 10)
    assert rates[50:] == pytest.approx([2e-5] * 30)


def test_cosine_halves_at_the_middle_and_ends_at_its_final_factor() -> None:
    rates = learning_rates(Cosine(final_factor=0.1))
    assert rates[0] == 1.0
    assert rates[STEPS // 2] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=2e-3)


def test_poly_is_one_minus_progress_to_the_power() -> None:
    rates = learning_rates(Poly(power=2.0))
    expected = [(1 - step / STEPS) ** 2 for step in range(STEPS)]
    assert rates == pytest.approx(expected)


def test_one_cycle_rises_to_the_optimizers_rate_and_falls_to_nearly_nothing() -> None:
    rates = learning_rates(OneCycle(pct_start=0.25, div_factor=10, final_div_factor=100))
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == pytest.approx(0.25 * STEPS, abs=1)
    assert rates[-1] == pytest.approx(1e-3, rel=0.2)


def test_warm_up_precedes_any_schedule() -> None:
    for schedule in (Cosine(warmup=0.1, warmup_factor=0.5), Poly(warmup=0.1, warmup_factor=0.5)):
        rates = learning_rates(schedule)
        assert rates[0] == pytest.approx(0.5)
        assert rates[8] == pytest.approx(1.0)
    assert learning_rates(Constant(warmup=0.5, warmup_factor=0.5))[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "schedule", [MultiStep(milestones=[0.5], warmup=0.2), Cosine(warmup=0.2), Poly(), OneCycle(), Constant()]
)
def test_the_shortest_runs_work_too(schedule: object, steps: int) -> None:
    rates = learning_rates(schedule, steps)
    assert all(0 <= rate <= 1 for rate in rates)


def test_steps_count_the_incomplete_group_of_micro_batches() -> None:
    assert total_steps([7, 7, 7], accumulate=2) == 12
