from __future__ import annotations

import pytest

from mtlsearch.search.executors.gpu_sharing import advice, fitting, share_of, trials_of
from mtlsearch.search.executors.resources import Demand, Node, Resources, plan_trials


def test_a_share_lets_so_many_trials_on_a_gpu_and_no_more() -> None:
    for trials in range(1, 100):
        assert trials_of(share_of(trials)) == trials
        assert plan_trials(Demand(gpus_per_worker=share_of(trials)), 500, [Node(100, 1)]).concurrent == trials


def test_trials_fit_by_their_memory() -> None:
    assert [fitting(trial, 80e9) for trial in (9.1e9, 40e9, 80e9, 81e9)] == [8, 2, 1, 0]


@pytest.mark.parametrize(
    ("trial", "share", "words"),
    [
        (9.1e9, 0.25, "--gpus-per-worker 0.25: 4 trials × 9.1 GB fit 80.0 GB; 8 do with --gpus-per-worker 0.125"),
        (20e9, 0.25, "--gpus-per-worker 0.25: 4 trials × 20.0 GB fit 80.0 GB"),
        (25e9, 0.25, "0.25 does not fit: 4 trials × 25.0 GB on 80.0 GB; 3 do with --gpus-per-worker 0.3333"),
        (50e9, 1.0, "--gpus-per-worker 1: 1 trial × 50.0 GB fit 80.0 GB"),
        (50e9, 2.0, "--gpus-per-worker 2: 1 trial × 50.0 GB fit 80.0 GB"),
        (90e9, 1.0, "a trial takes 90.0 GB and a GPU has 80.0 GB: not one fits"),
    ],
)
def test_what_fits_is_said_and_what_does_not(trial: float, share: float, words: str) -> None:
    assert words in advice(trial, 80e9, share)
    assert ("not fit" in advice(trial, 80e9, share)) == ("does not fit" in words)


@pytest.mark.parametrize(
    ("workers", "share", "nodes", "alone"),
    [
        (1, 0.25, [Node(8, 2)], 1.0),
        (1, 1.0, [Node(8, 2)], 1.0),
        (1, 2.0, [Node(8, 4)], 2.0),
        (2, 0.25, [Node(8, 1)], 0.5),
        (2, 0.25, [Node(8, 2)], 1.0),
        (3, 0.25, [Node(8, 2)], 0.5),  # two thirds of a GPU are found once on each
        (3, 0.25, [Node(8, 1), Node(8, 1)], 0.5),
        (4, 0.25, [Node(8, 1), Node(2, 8)], 1 / 3),  # the second has the CPUs of one worker
        (1, 0.0, [Node(8, 0)], 0.0),
    ],
)
def test_alone_a_worker_has_whole_gpus_as_far_as_there_are(
    workers: int, share: float, nodes: list[Node], alone: float
) -> None:
    among = Resources(8, 4, 2, share, workers, "ray_train")
    assert among.alone(nodes) == Resources(8, 1, 2, alone, workers, "ray_train")
    assert among.alone(nodes).alone(nodes) == among.alone(nodes), "there is no more alone than alone"


def test_what_a_trial_shares_is_said() -> None:
    assert Resources(8, 4, 2, 0.25).share == "at 0.25 GPU"
    assert Resources(8, 4, 2).share == "beside 3 others"
    assert Resources(8, 2, 2, 1.0).share == "beside 1 other"
