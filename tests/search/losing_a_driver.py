"""A search of worker groups on a cluster of its own, killed with its groups at work, and gone on with:
`python -m tests.search.losing_a_driver FOLDER`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from mtlsearch.search.study.study import JOURNAL
from tests.processes import alive, descendants

NAME = "losing"


def epochs(folder: Path) -> int:
    journal = folder / "results" / NAME / JOURNAL
    return journal.read_text().count('"event": "epoch"') if journal.exists() else 0


def search(folder: Path, address: str, executor: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mtlsearch.tune", "--address", address, "--executor", executor, *options]
    output = (folder / "screen").open("a")
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": "."})


def groups_at_work() -> set[int]:
    """Processes of the cluster, which are this one's, that stand for a trial or train it."""
    return {
        pid for pid, title in alive(descendants(os.getpid())).items() if title.startswith("ray::") and "Tr" in title
    }


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    tracker = ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    settings = ["--num-samples", "2", "--confirm-seeds", "0"]
    one = ["--max-concurrent-trials", "1"]
    config = ["--set", "problem=tests.search.losing_a_node:Slow", "--set", "training.epochs=4"]
    begin = ["--space", "examples/own_space.yaml", "--results", str(folder / "results"), "--name", NAME]
    driver = search(folder, cluster.address, "ray_train", *begin, *tracker, *settings, *one, *config)
    while epochs(folder) < 2:
        assert driver.poll() is None, (folder / "screen").read_text()
        time.sleep(0.1)
    assert groups_at_work()
    driver.kill()
    driver.wait()
    killed = time.monotonic()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    while time.monotonic() < killed + 60:  # 0.3 s as a rule; at times Ray takes longer to see that the job has died
        held = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        free = ray.available_resources().get("CPU") == 2
        if free and not held and not groups_at_work():
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"held after a minute: {held}, {groups_at_work()}, all CPUs free: {free}")
    print(f"free after {time.monotonic() - killed:.1f} s")
    ray.shutdown()
    # inline, which starts sooner: whoever goes on finds the same checkpoints
    going_on = search(folder, cluster.address, "inline", "--resume", str(folder / "results" / NAME), *tracker, *one)
    assert going_on.wait(timeout=120) == 0, (folder / "screen").read_text()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
