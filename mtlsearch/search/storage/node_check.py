"""Whether every node of a cluster reaches the folder that trials write to."""

from __future__ import annotations

import uuid
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtlsearch.errors import InputError
from mtlsearch.training.storage import RemoteFolder, StorageError

#: for all nodes to answer, some of which first start a process
_SECONDS = 120.0


def check_nodes(storage: RemoteFolder | None, results: Path) -> None:
    """Has every node of the Ray that this process is connected to read what this process wrote, and write: in the
    storage, or, where there is none, in the folder of the studies.

    Raises:
        InputError: some nodes cannot; the message names them.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    folder = storage or RemoteFolder(results.absolute())
    mark = f".check-{uuid.uuid4().hex}"
    folder.write(mark, mark.encode())
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked = {}
    for number, node in enumerate(nodes):
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[look.options(scheduling_strategy=on_node).remote(folder.uri, mark, f"{mark}-{number}")] = node
    try:
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
        faults: list[tuple[str, str]] = []
        for number, (task, node) in enumerate(asked.items()):
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                fault = ray.get(task) if task in answered else f"it did not answer in {_SECONDS:.0f} s"
            except RayError as error:
                fault = str(error).splitlines()[-1]
            if not fault and not folder.exists(f"{mark}-{number}"):
                fault = "what it writes is not seen here"
            if fault:
                faults.append((name, fault))
    finally:
        for name in [mark, *(f"{mark}-{number}" for number in range(len(asked)))]:
            folder.delete(name)
    if faults:
        advice = "give a --storage-path that all of them reach"
        if storage is None:
            advice = "give --storage-path, such as s3://bucket/studies, or --results in a folder that all of them mount"
        names = ", ".join(name for name, _ in faults)
        raise InputError(f"{names}, of {len(nodes)} nodes, cannot use {folder}: {faults[0][1]}; {advice}")


def _look(uri: str, mark: str, answer: str) -> str:
    """On a node: why the folder cannot be used there, "" where it can."""
    folder = RemoteFolder(uri)
    try:
        if not folder.exists(mark):
            return "it does not see what the driver wrote there"
        folder.write(answer, mark.encode())
    except StorageError as error:
        return str(error)
    return ""
