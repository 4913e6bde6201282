"""A search over two nodes on this machine, of which one dies: `python -m tests.search.losing_a_node FOLDER`.

Its trials meet at the storage FOLDER/stored. Before it, a search is refused whose storage the nodes do not share.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from pathlib import Path

import ray
import torch
from ray.cluster_utils import Cluster
from rich.console import Console

from examples.own_problem import Waves
from mtlsearch.errors import InputError
from mtlsearch.search import load_plan, run_search
from mtlsearch.search.executors.resources import Demand
from mtlsearch.search.storage.node_check import check_nodes
from mtlsearch.search.study.study import JOURNAL
from mtlsearch.training.storage import RemoteFolder


class Slow(Waves):
    """An epoch of about half a second, so that there is a middle to it."""

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.04)
        return super().batch(indices, generator)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    lost = cluster.add_node(**node)

    def lose_it() -> None:
        journal = folder / "results" / "losing" / JOURNAL
        while not journal.exists() or len({line for line in journal.open() if '"epoch"' in line}) < 4:
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)

    try:
        ray.init(address=cluster.address, logging_level="ERROR")
        check_nodes(RemoteFolder("memory://each process has its own"), folder)
    except InputError as error:
        print(error)
    finally:
        ray.shutdown()
    threading.Thread(target=lose_it, daemon=True).start()
    overrides = ["problem=tests.search.losing_a_node:Slow", "training.epochs=6"]
    settings = {"start_with": [], "confirm": {"seeds": 0}, "early_stopping": "none", "report": False}
    run_search(
        load_plan("examples/own_space.yaml", overrides, {**settings, "num_samples": 4}),
        results=folder / "results",
        name="losing",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        address=cluster.address,
        storage=RemoteFolder(folder / "stored"),
        demand=Demand("inline", concurrent=2, cpus_per_trial=1),
        console=Console(width=200, markup=False),
    )
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
