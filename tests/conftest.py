"""Shared by all tests: one thread, the cache kept out of the user's home, one Ray per test session."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# isort: off
from mtlsearch import _command  # noqa: F401 - before torch: it sets how OpenMP waits, here as in the commands
import torch
# isort: on

ROOT = Path(__file__).parents[1]


@cache
def shares_ray(file: str) -> bool:
    """Whether a test file uses the session's Ray."""
    return "shared_ray" in (ROOT / file).read_text()


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share out the tests, what takes longest comes first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not shares_ray(file_of(item.nodeid)), not item.get_closest_marker("ray")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process takes all that share a Ray, so that one is started; the others go file by file to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    class RayInOneProcess(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = file_of(nodeid)
            return "shared Ray" if shares_ray(file) else file

    config.option.loadscopereorder = False
    return RayInOneProcess(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Packs rendered by tests go to a folder that goes with the session; subprocesses inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    previous = os.environ.get("MTLSEARCH_CACHE")
    os.environ["MTLSEARCH_CACHE"] = str(folder)
    yield
    if previous is None:
        del os.environ["MTLSEARCH_CACHE"]
    else:
        os.environ["MTLSEARCH_CACHE"] = previous


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """The one Ray of the test session; its workers find examples/ as the root of the repository has it."""
    from mtlsearch.search.executors.inline import running_ray
    from mtlsearch.search.executors.resources import plan_resources

    previous = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with running_ray(plan_resources(8)):
            yield
    if previous is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = previous


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's root as working folder and on the path, as the README's commands have it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    return ROOT


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The URI of a folder in an S3 server on this machine, which goes with the session."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").disabled = True  # it writes a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        yield f"s3://studies/of/tests?endpoint_override={host}:{port}&scheme=http&allow_bucket_creation=true"
    server.stop()
