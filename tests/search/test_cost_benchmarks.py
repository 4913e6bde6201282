"""The benchmarks of what a search costs, on two tiny trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import search_overhead, search_scale
from benchmarks.search_cost import group_trials
from benchmarks.search_cost.group_trials import LAUNCHED
from benchmarks.search_cost.noted_exchange import CLOSED, CONTROLLED, ENDED, GIVEN, JOINED, TAKEN
from benchmarks.search_cost.notes import Note
from benchmarks.search_cost.waves import BEGUN, SCORED

pytestmark = [pytest.mark.usefixtures("at_root"), pytest.mark.filterwarnings("ignore:::ray")]


def test_the_time_between_trainings_is_that_of_one_process() -> None:
    notes = [Note(when, process, 0.0, what) for when, process, what in [
        (1.0, 7, BEGUN), (1.5, 8, BEGUN), (2.0, 7, SCORED), (3.0, 7, SCORED), (3.2, 7, BEGUN), (3.6, 8, SCORED),
        (4.0, 7, SCORED), (4.1, 8, BEGUN), (5.0, 8, SCORED), (0.5, 9, "imports"),
    ]]  # fmt: skip
    assert search_overhead.trainings_of(notes) == {7: [(1.0, 3.0), (3.2, 4.0)], 8: [(1.5, 3.6), (4.1, 5.0)]}
    stages = dict(search_overhead.stages_of(notes, 0.25))
    assert stages == {"imports": 0.25, BEGUN: 0.75, "last training ends": 4.75}


def test_the_plain_script_trains_and_is_measured(tmp_path: Path) -> None:
    options = search_overhead.Options(trials=2, processes=1, epochs=1)
    run, _, _ = search_overhead.plain(options, tmp_path, search_overhead.LEAN)
    assert len(run.gaps) == 1 and 0 < run.gaps[0] < run.wall
    assert run.cpu > 0
    assert run.first + run.last + 2 * run.training + run.gaps[0] == pytest.approx(run.wall)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_part_of_a_simulated_study_is_clocked(tmp_path: Path, shared_ray: None) -> None:
    samples = search_scale.simulate(3, tmp_path)
    assert len(samples) == 4, "one for each trial, and one at the end"
    assert samples[-1]["tracked"] == 4, "each trial's run, and the study's"
    parts = {part: total for part, _, _, total in search_scale.rows(samples)}
    assert set(parts) == {*search_scale.PARTS, "elapsed"}
    assert not [part for part in parts if part != search_scale.RAY and parts[part] <= 0]
    assert parts["elapsed"] > parts[search_scale.RAY]
    assert "3 trials" in search_scale.table(3, samples)


def test_a_group_s_trials_are_taken_apart() -> None:
    notes = [Note(when, 1, 0.0, what) for when, what in [
        (1.0, LAUNCHED), (4.0, GIVEN), (9.0, CONTROLLED), (13.0, JOINED), (13.5, TAKEN), (14.0, BEGUN), (15.0, SCORED),
        (16.0, SCORED), (16.5, CLOSED), (17.0, LAUNCHED), (17.25, GIVEN), (17.5, TAKEN), (18.0, BEGUN), (20.0, SCORED),
        (20.5, CLOSED), (21.0, ENDED),
    ]]  # fmt: skip
    first, later = group_trials.parts_of(notes)
    assert list(first.values()) == [3.0, 5.0, 4.0, 0.5, 0.5, 2.0, 0.5] and sum(first.values()) == 15.5
    assert list(later.values()) == [0.5, 0.25, 0.25, 0.5, 2.0, 0.5] and sum(later.values()) == 4.0
    assert "9.75 s a trial over all 2; 0.50 s to end the group" in group_trials.table(notes)
