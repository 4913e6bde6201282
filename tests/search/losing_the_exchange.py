"""python -m tests.search.losing_the_exchange FOLDER: a search of worker groups whose exchange is killed after the first
epoch, on a Ray of its own, since the places of its groups are free when its process ends and not before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle

from mtlsearch.search import load_plan, run_search
from mtlsearch.search.executors import ray_train
from mtlsearch.search.executors.resources import Demand
from mtlsearch.search.study.study import Study
from mtlsearch.search.trials.exchange import running_exchange
from mtlsearch.training.loop import Row


@contextmanager
def mortal() -> Iterator[ActorHandle]:
    add_epoch = Study.add_epoch
    with running_exchange() as exchange:

        def kill(study: Study, number: int, row: Row) -> None:
            add_epoch(study, number, row)
            ray.kill(exchange)

        Study.add_epoch = kill  # type: ignore[method-assign]
        yield exchange


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    ray_train.running_exchange = mortal  # type: ignore[attr-defined]
    settings = {"start_with": [], "confirm": {"seeds": 0}, "report": False, "num_samples": 2}
    outcome = run_search(
        load_plan("examples/own_space.yaml", ["training.epochs=3"], settings),
        results=folder / "results",
        name="losing",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        demand=Demand("ray_train", concurrent=1),
    )
    print("interrupted" if outcome.interrupted else "ended")
