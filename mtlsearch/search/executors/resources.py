"""How many trials run at once, where, and with what each."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import ray
import torch
from ray._private.state import state as ray_state

from mtlsearch.errors import InputError
from mtlsearch.search.executors.gpu_sharing import trials_of
from mtlsearch.training.environment import available_cpus

#: beyond this a small network trains no faster on CPU
_MOST_THREADS = 4
#: resident memory of one trial process with torch, timm and numba loaded and a small model training
_TRIAL_BYTES = 1.5e9


ExecutorName = Literal["auto", "inline", "ray_train"]


@dataclass(frozen=True)
class Resources:
    """`concurrent` trials of `workers` processes with `cpus` CPUs and `gpus` of a GPU each, of `total` CPUs that there
    are."""

    total: int
    concurrent: int
    cpus: int
    gpus: float = 0.0
    workers: int = 1
    executor: Literal["inline", "ray_train"] = "inline"

    @property
    def trial_gpus(self) -> float:
        return self.workers * self.gpus

    @property
    def share(self) -> str:
        """What a trial has beside others: "at 0.25 GPU", "beside 3 others"."""
        if 0 < self.gpus < 1:
            return f"at {self.gpus:.2g} GPU"
        return f"beside {_counted(self.concurrent - 1, 'other')}" if self.concurrent > 1 else "alone"

    def alone(self, nodes: Sequence[Node]) -> Resources:
        """What a trial gets that is to share nothing: the largest shares of GPUs that its workers find on these nodes,
        and as many threads as before, so that its sums stay the same."""
        shares = (1 / on_one for on_one in range(1, self.workers + 1))
        larger = (share for share in shares if share > self.gpus > 0)
        fits = (share for share in larger if sum(_workers_on(node, self.cpus, share) for node in nodes) >= self.workers)
        return replace(self, concurrent=1, gpus=next(fits, self.gpus))

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        each = f"{self.workers} workers of {self.cpus} CPU" if self.workers > 1 else f"{self.cpus} CPU"
        return f"{self.concurrent} at a time with {each}{gpus} each"


@dataclass(frozen=True)
class Demand:
    """What a user asks for; None where this is left to the machine."""

    executor: ExecutorName = "auto"
    concurrent: int | None = None
    cpus_per_trial: int | None = None
    """of the inline executor, whose trials are one process"""
    workers: int = 1
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has."""

    cpus: float
    gpus: float


def this_machine() -> list[Node]:
    """What this process may use."""
    return [Node(available_cpus(), torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def cluster_nodes() -> list[Node]:
    """The nodes of the Ray that this process is connected to, and what an autoscaler could add to them as one more."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [Node(node.get("CPU", 0), node.get("GPU", 0)) for node in found]
    limits = ray_state.get_max_resources_from_cluster_config() or {}
    cpus, gpus = (limits.get(name, 0) - sum(node.get(name, 0) for node in found) for name in ("CPU", "GPU"))
    return [*nodes, Node(max(0, cpus), max(0, gpus))] if limits else nodes


def plan_trials(demand: Demand, num_samples: int, nodes: Sequence[Node]) -> Resources:
    """Which executor, how many trials at one time, and with what each.

    Raises:
        InputError: a trial can never run on these nodes.
    """
    gpus = sum(node.gpus for node in nodes)
    one_process = demand.executor == "inline" or demand.cpus_per_trial is not None or not gpus
    grouped = demand.workers > 1 or bool(demand.gpus_per_worker) or demand.cpus_per_worker is not None
    if demand.executor == "inline" and grouped:
        raise InputError(
            "--executor inline trains each trial in one process, for which there is --cpus-per-trial; workers and "
            "their CPUs and GPUs are for --executor ray_train"
        )
    if demand.executor != "ray_train" and not grouped and one_process:
        return plan_resources(num_samples, demand.cpus_per_trial, demand.concurrent, nodes=nodes)
    if demand.cpus_per_trial is not None:
        raise InputError("--cpus-per-trial is for the inline executor; give --cpus-per-worker")
    return _plan_groups(demand, num_samples, nodes)


def _plan_groups(demand: Demand, num_samples: int, nodes: Sequence[Node]) -> Resources:
    """As many groups as fit, each of a whole GPU a worker where there are any, and of the CPUs that come with it."""
    total, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    each_gpu = demand.gpus_per_worker if demand.gpus_per_worker is not None else float(gpus > 0)
    if each_gpu > 1 and each_gpu != int(each_gpu):
        raise InputError(f"--gpus-per-worker must be a whole number or a fraction below 1, got {each_gpu:g}")
    groups_by_gpu = gpus / (each_gpu * demand.workers) if each_gpu else math.inf
    share = int(total / (demand.workers * max(1.0, min(groups_by_gpu, num_samples)))) if each_gpu else 1
    cpus = demand.cpus_per_worker or max(1, min(_MOST_THREADS, share))
    fitting = sum(_workers_on(node, cpus, each_gpu) for node in nodes)
    if fitting < demand.workers:
        _refuse(demand.workers, cpus, each_gpu, nodes, fitting)
    most = fitting // demand.workers
    concurrent = demand.concurrent or (most if each_gpu else min(most, max(2, num_samples // 4)))
    return Resources(
        total=int(total),
        concurrent=max(1, min(concurrent, most, num_samples)),
        cpus=cpus,
        gpus=each_gpu,
        workers=demand.workers,
        executor="ray_train",
    )


def _workers_on(node: Node, cpus: int, gpus: float) -> int:
    """How many workers fit on a node. A fraction of a GPU comes from one GPU."""
    by_cpu = int(node.cpus // cpus)
    if not gpus:
        return by_cpu
    by_gpu = int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * trials_of(gpus)
    return min(by_cpu, by_gpu)


def _refuse(workers: int, cpus: int, gpus: float, nodes: Sequence[Node], fitting: int) -> None:
    where = f"the cluster of {len(nodes)} nodes" if len(nodes) > 1 else "the cluster"
    have = {"GPU": sum(node.gpus for node in nodes), "CPU": sum(node.cpus for node in nodes)}
    for kind, each, option in (("GPU", gpus, "--gpus-per-worker"), ("CPU", cpus, "--cpus-per-worker")):
        if workers * each > have[kind]:
            raise InputError(
                f"a trial needs {_counted(workers * each, kind)} and {where} has {have[kind]:g}; lower "
                f"--workers-per-trial or {option}"
            )
    raise InputError(
        f"a trial needs {workers} workers with {_counted(cpus, 'CPU')} and {_counted(gpus, 'GPU')} each, of which "
        f"{fitting} fit on the nodes of {where}; lower --workers-per-trial or what a worker gets"
    )


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def plan_resources(
    num_samples: int,
    cpus_per_trial: int | None = None,
    concurrent: int | None = None,
    nodes: Sequence[Node] | None = None,
    trial_bytes: float = _TRIAL_BYTES,
    trial_gpu_bytes: float = 0.0,
) -> Resources:
    """Fills the machine, or the nodes of a cluster, with trials of one process, without starting so many at once that
    the sampler learns from none of them.

    trial_bytes, trial_gpu_bytes: memory of a trial, of the machine and of a GPU; as many as fit are started, where
    `concurrent` does not say.

    Raises:
        InputError: a trial needs more CPUs than there are.
    """
    nodes = this_machine() if nodes is None else nodes
    total, largest = int(sum(node.cpus for node in nodes)), int(max(node.cpus for node in nodes))
    if cpus_per_trial is not None and cpus_per_trial > largest:
        where = "this process may use" if len(nodes) == 1 else "the largest node of the cluster has"
        raise InputError(f"a trial needs {cpus_per_trial} CPUs and {where} {largest}; lower --cpus-per-trial")
    fitting = sum(int(node.cpus // (cpus_per_trial or 1)) for node in nodes)
    if concurrent is None:
        by_memory = int(_free_memory() / trial_bytes) if len(nodes) == 1 else fitting
        concurrent = min(fitting, max(2, num_samples // 4), max(1, by_memory))
        if torch.cuda.is_available() and trial_gpu_bytes:
            whole = torch.cuda.get_device_properties(0).total_memory
            concurrent = min(concurrent, torch.cuda.device_count() * max(1, int(whole / trial_gpu_bytes)))
    concurrent = max(1, min(concurrent, fitting, num_samples))
    cpus = cpus_per_trial or max(1, min(_MOST_THREADS, largest, total // concurrent))
    return Resources(total, concurrent, cpus, sum(node.gpus for node in nodes) / concurrent)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")
