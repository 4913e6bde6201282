from __future__ import annotations

import pytest

from mtlsearch.search.study import paced
from mtlsearch.search.study.paced import Paced


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_an_action_takes_its_share_of_the_time_however_slow_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, spent = Clock(), []
    monkeypatch.setattr(paced, "time", clock)

    def action() -> None:  # each takes longer than the one before, as a table does that grows
        spent.append(0.001 * (len(spent) + 1))
        clock.now += spent[-1]

    often = Paced(action)
    for _ in range(10_000):
        clock.now += 0.01
        often.call()
    passed = clock.now - 100.0
    assert 0.01 * passed < sum(spent) < 0.03 * passed
    assert len(spent) > 10


def test_what_is_due_is_done_at_the_end_and_once() -> None:
    done: list[int] = []
    often = Paced(lambda: done.append(len(done)))
    often.finish()
    assert done == [], "nobody asked"
    often._not_before = float("inf")
    often.call()
    assert done == []
    often.finish()
    often.finish()
    assert done == [0]
