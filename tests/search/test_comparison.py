from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mtlsearch.errors import InputError
from mtlsearch.search.judging.comparison import Comparison, compare, over_seeds, over_seeds_and_samples
from mtlsearch.search.judging.confirm import Confirmed
from mtlsearch.search.study.study import TrialState
from mtlsearch.training.sample_scores import SCORES, SampleScores, Scores, load_scores, save_scores, scores_or_none

OBJECTIVES = ["val/nme", "cost/macs"]
SAMPLES = np.arange(60)


def confirmed(values: list[float], scores: tuple[Scores, ...] = (), macs: float = 2e6) -> Confirmed:
    rows = [{"epoch": 1.0, "best/epoch": 1.0, "best/val/nme": value, "best/cost/macs": macs} for value in values]
    runs = tuple(
        TrialState(i, "confirm", "one", {}, history=[row], status="finished", test={"nme": value})
        for i, (row, value) in enumerate(zip(rows, values))
    )
    return Confirmed("one", False, runs[0], runs, scores or tuple({} for _ in runs))


def scored(values: list[float], spread: float = 0.0) -> tuple[Scores, ...]:
    """Scores of samples around each run's figure, the same deviations in every run."""
    deviations = spread * np.sin(SAMPLES.astype(float))
    one = [SampleScores(value + deviations - deviations.mean(), np.zeros(60, np.int64)) for value in values]
    return tuple({("val", "nme"): own} for own in one)


def by_figure(one: Confirmed, other: Confirmed) -> dict[str, Comparison]:
    return {comparison.figure: comparison for comparison in compare(one, other, OBJECTIVES)}


def test_intervals_are_over_images_where_samples_are_scored_and_over_seeds_elsewhere() -> None:
    ours, theirs = [1.0, 1.1, 0.9, 1.2, 0.8], [2.0, 2.0, 2.0, 2.0, 2.0]
    found = by_figure(confirmed(ours, scored(ours, 0.3)), confirmed(theirs, scored(theirs)))
    assert found["val/nme"].over == "seeds and samples"
    assert found["test/nme"].over == "seeds"  # its samples were not scored
    assert found["val/nme"].mean == pytest.approx(-1.0)
    assert found["val/nme"].bounds is not None
    assert found["val/nme"].bounds[0] < -1.0 < found["val/nme"].bounds[1] < 0
    assert not found["val/nme"].tied


def test_a_cost_has_a_difference_and_no_interval() -> None:
    one, other = confirmed([1.0] * 5, macs=2e6), confirmed([1.0] * 5, macs=5e6)
    cost = by_figure(one, other)["cost/macs"]
    assert (cost.mean, cost.bounds, cost.tied) == (-3e6, None, False)


def test_below_five_seeds_and_with_a_failed_run_nothing_is_claimed() -> None:
    for ours in ([1.0, 1.1, 0.9, 1.2], [1.0, 1.1, 0.9, 1.2, math.nan]):
        for comparison in compare(confirmed(ours), confirmed([2.0] * len(ours)), OBJECTIVES):
            assert comparison.bounds is None


def test_a_difference_that_other_images_could_turn_is_tied() -> None:
    ours, theirs = [1.0, 1.02, 0.98, 1.01, 0.99], [1.05] * 5
    sure = by_figure(confirmed(ours, scored(ours)), confirmed(theirs, scored(theirs)))["val/nme"]
    unsure = by_figure(confirmed(ours, scored(ours, 2.0)), confirmed(theirs, scored(theirs)))["val/nme"]
    assert not sure.tied
    assert unsure.tied


def test_scores_of_other_samples_are_not_compared() -> None:
    ours = [1.0, 1.1, 0.9, 1.2, 0.8]
    shorter = tuple(
        {key: SampleScores(one.values[:-1], one.groups[:-1]) for key, one in own.items()} for own in scored(ours)
    )
    found = by_figure(confirmed(ours, scored(ours)), confirmed(ours, shorter))
    assert found["val/nme"].over == "seeds"


def test_without_variation_over_samples_the_bootstrap_is_about_students_interval() -> None:
    seeds = np.array([-1.0, -1.1, -0.9, -1.2, -0.8])
    differences = np.repeat(seeds[:, None], 30, axis=1)
    low, high = over_seeds_and_samples(differences, np.arange(30) % 3)
    expected = over_seeds(seeds)
    assert low == pytest.approx(expected[0], abs=0.2 * (expected[1] - expected[0]))
    assert high == pytest.approx(expected[1], abs=0.2 * (expected[1] - expected[0]))


def test_groups_count_alike_whatever_their_size_and_samples_without_one_do_not() -> None:
    groups = np.array([0] * 30 + [1] * 3 + [-1] * 5)
    differences = np.tile(np.where(groups == 0, 1.0, 3.0) + np.where(groups < 0, 1e9, 0.0), (5, 1))
    low, high = over_seeds_and_samples(differences, groups)
    assert (low, high) == (pytest.approx(2.0), pytest.approx(2.0))
    assert SampleScores(differences[0], groups).metric == pytest.approx(2.0)


@pytest.mark.parametrize(("seed_spread", "sample_spread"), [(1.0, 0.0), (1.0, 5.0), (0.2, 5.0)])
def test_the_intervals_cover_the_truth_about_as_often_as_they_say(seed_spread: float, sample_spread: float) -> None:
    rng = np.random.default_rng(0)
    trials, covered = 150, 0
    groups = np.arange(45) % 3
    for _ in range(trials):
        seeds, samples = rng.normal(size=(5, 1)) * seed_spread, rng.normal(size=45) * sample_spread
        low, high = over_seeds_and_samples(seeds + samples, groups)
        covered += low <= 0 <= high
    assert 0.90 <= covered / trials <= 0.99


def test_students_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = over_seeds(rng.normal(size=5))
        covered += low <= 0 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    scores = scored([1.0])[0]
    save_scores(tmp_path / SCORES, scores)
    read = load_scores(tmp_path / SCORES)
    assert list(read) == [("val", "nme")]
    np.testing.assert_array_equal(read["val", "nme"].values, scores["val", "nme"].values)
    assert load_scores(tmp_path / "none.npz") == {}
    (tmp_path / SCORES).write_bytes((tmp_path / SCORES).read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        load_scores(tmp_path / SCORES)


def test_a_file_that_is_damaged_anywhere_is_said_to_be_or_read_right(tmp_path: Path) -> None:
    path = tmp_path / SCORES
    save_scores(path, scored([1.0])[0])
    whole = path.read_bytes()
    faults = 0
    for cut in (0, 10, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="damaged"):
            load_scores(path)
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_scores(path)
        except InputError:
            faults += 1
            assert scores_or_none(path) == {}
    assert faults > len(whole) / 10
