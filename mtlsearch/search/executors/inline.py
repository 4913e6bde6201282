"""Trials inside reused Ray actors: the executor for one-worker trials, where start-up would outweigh training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants
from ray.tune import Callback
from ray.tune.execution import class_cache

from mtlsearch.errors import InputError
from mtlsearch.search.executors.executor import Executor
from mtlsearch.search.executors.resources import Resources
from mtlsearch.search.trials.trainable import tune_trainable

#: Ray takes a given 127.0.0.1 for "any interface" unless clusters are disabled, as they are by default on macOS and
#: Windows
_LOOPBACK = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
_PRELOADED = "mtlsearch.search.trials.preloaded"
#: trials pass numbers, not arrays
_OBJECT_STORE_BYTES = 200_000_000


class Inline(Executor):
    """Runs trials in a local Ray or on a cluster, one process each, `resources.concurrent` at a time.

    A trial whose process or node dies goes on from its last epoch, in another process.
    """

    @contextmanager
    def _trials(self) -> Iterator[tuple[Any, Sequence[Callback]]]:
        yield tune.with_resources(tune_trainable, {"cpu": self.resources.cpus, "gpu": self.resources.gpus}), ()


@contextmanager
def running_ray(resources: Resources | None, address: str = "local", preload: Sequence[str] = ()) -> Iterator[None]:
    """The Ray that this process is connected to already, or the cluster at `address`, or one of our own on loopback,
    with room for the `resources`.

    What was started or connected to here is left at the end of the scope. The processes of a Ray of our own import the
    modules `preload`, and what every trial needs, while this process makes the study ready.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as scope:
        if address == "local":
            assert resources is not None
            # a worker group needs five processes, of which three import next to nothing by themselves
            modules = [_PRELOADED, *preload] if resources.executor == "inline" else []
            variables = {**_LOOPBACK, "RAY_preload_python_modules": ",".join(modules)}
            scope.enter_context(variables_set({**variables, **scope.enter_context(_ready_processes())}))
            scope.enter_context(_without_clusters())
            options: dict[str, Any] = {
                # Ray starts as many processes beforehand
                "num_cpus": resources.concurrent * resources.workers * resources.cpus,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
            ray.init(address="local", object_store_memory=_OBJECT_STORE_BYTES, **options, **quiet)
        else:
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(f"Ray at {address!r} does not answer ({reason}); give --address local") from None
        scope.callback(ray.shutdown)
        yield


@contextmanager
def _ready_processes() -> Iterator[dict[str, str]]:
    """Has Tune train in the processes that Ray starts beforehand, which need the variables that are yielded.

    Tune asks for processes with variables of its own, so that those which are ready would stay idle and others start.
    """
    variables = dict(class_cache.DEFAULT_ENV_VARS)
    class_cache.DEFAULT_ENV_VARS.clear()
    try:
        yield variables
    finally:
        class_cache.DEFAULT_ENV_VARS.update(variables)


@contextmanager
def _without_clusters() -> Iterator[None]:
    """For this process, which has read its environment already: Ray reads _LOOPBACK's variable at import."""
    constant = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant


@contextmanager
def variables_set(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables set within the scope, for the processes that are started in it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
