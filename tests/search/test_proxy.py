from __future__ import annotations

from pathlib import Path

import pytest

from mtlsearch.errors import InputError
from mtlsearch.search import load_plan
from mtlsearch.search.judging.proxy import Fidelity, choose_pairs, collect_pairs, fidelity
from mtlsearch.search.report.sections import proxy
from mtlsearch.search.report.source import read_study
from tests.search.studies import Writer

pytestmark = pytest.mark.usefixtures("at_root")

FULL = {"full": {"training": {"epochs": 20}, "model": {"width": 128}}, "spread": 3}


def study(folder: Path, at_full_size: list[float], spread: int = 3) -> Writer:
    """Ten trials, the later the better, the first of them the baseline; those at full size by their names."""
    written = Writer(folder, num_samples=10, confirm={"seeds": 0}, proxy={**FULL, "spread": spread})
    for number in range(10):
        written.trial([(1.0 - 0.05 * number,) * 2], label="" if number else "own_problem", end="finished")
    names = [candidate.name for candidate in chosen(written)]
    for name, value in zip(names, at_full_size):
        written.trial([(value, value)], label=name, phase="full", seed=1)
    return written


def chosen(written: Writer) -> list:  # type: ignore[type-arg]
    record = read_study(written.folder)
    return choose_pairs(record.searched, record.ranked, record.settings)


def test_winners_baselines_and_even_steps_through_the_ranks_are_chosen(tmp_path: Path) -> None:
    names = [candidate.name for candidate in chosen(study(tmp_path / "study", []))]
    # trial 9 won; of the ranks 8 … 1 every third, down to the last
    assert names == ["trial 9", "own_problem", "trial 6", "trial 3", "trial 1"]
    assert len(chosen(study(tmp_path / "more", [], spread=50))) == 10


def test_an_order_that_holds_at_full_size_is_no_warning_and_one_that_turns_is(tmp_path: Path) -> None:
    holds = proxy.section(read_study(study(tmp_path / "holds", [0.1, 0.9, 0.2, 0.3, 0.4]).folder))
    assert ["below" in line for line in holds.warnings] == [False, False]
    assert "5 are weak evidence" in holds.warnings[0]
    assert holds.tables[0].rows[0][:3] == ("val/frequency_error", "5", "1.000")
    turns = proxy.section(read_study(study(tmp_path / "turns", [0.9, 0.1, 0.4, 0.3, 0.2]).folder))
    assert "below 0.6" in turns.warnings[0]
    few = proxy.section(read_study(study(tmp_path / "few", [0.9, 0.1]).folder))
    assert "too few" in few.warnings[0]
    equal = proxy.section(read_study(study(tmp_path / "equal", [0.5] * 5).folder))
    assert "all figures are equal" in equal.warnings[0] and "too few" not in equal.warnings[0]


def test_from_eight_pairs_on_an_order_that_holds_is_taken_at_its_word() -> None:
    assert [bool(Fidelity("val/a", pairs, 0.9, (0.7, 1.0)).warning) for pairs in (7, 8)] == [True, False]
    assert "below 0.6" in Fidelity("val/a", 8, 0.5, (-0.3, 0.9)).warning


def test_without_pairs_there_is_no_correlation() -> None:
    assert [one.pairs for one in fidelity([], {"val/a": "min", "cost/macs": "min"})] == [0]


def test_a_full_size_that_is_no_config_is_an_error_before_any_work() -> None:
    with pytest.raises(InputError, match="epoch"):
        load_plan("examples/own_space.yaml", [], {"proxy": {"full": {"training": {"epoch": 20}}}})
    with pytest.raises(InputError, match="no distributions"):
        load_plan("examples/own_space.yaml", [], {"proxy": {"full": {"model": {"width": {"randint": [8, 9]}}}}})


def test_trainings_at_another_full_size_are_no_pairs(tmp_path: Path) -> None:
    written = study(tmp_path / "study", [0.1, 0.9, 0.2, 0.3, 0.4])
    record = read_study(written.folder)
    assert len(collect_pairs(record.trials, record.searched, record.settings)) == 5
    assert record.settings.proxy is not None
    larger = record.settings.proxy.model_copy(update={"full": {"training": {"epochs": 30}}})
    settings = record.settings.model_copy(update={"proxy": larger})
    assert collect_pairs(record.trials, record.searched, settings) == []
