"""What a search does so that its first trial does not wait for imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray
from ray.tune.execution import class_cache

from mtlsearch.search.plan.plan import load_plan


def imported(statement: str) -> set[str]:
    """The modules of a fresh process after `statement`."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_processes_that_train_import_no_search_and_the_driver_nothing_that_can_wait() -> None:
    worker = imported("import mtlsearch.search.trials.preloaded")
    assert {"torch", "ray.tune", "mtlsearch.search.trials.trainable"} <= worker
    assert not worker & {"optuna", "mlflow", "mtlsearch.search.run", "mtlsearch.search.study.study", "scipy.stats"}
    driver = imported("from mtlsearch.search import run_search")
    assert "mtlsearch.search.run" in driver
    assert not driver & {"mlflow", "scipy.stats", "plotly", "matplotlib"}


def test_names_are_found_when_they_are_asked_for_and_others_are_refused() -> None:
    import mtlsearch.search
    import mtlsearch.tracking

    assert all(hasattr(mtlsearch.search, name) for name in mtlsearch.search.__all__)
    assert all(hasattr(mtlsearch.tracking, name) for name in mtlsearch.tracking.__all__)
    with pytest.raises(AttributeError, match=r"'mtlsearch\.search' has no attribute 'run_serach'"):
        mtlsearch.search.run_serach  # noqa: B018


@pytest.mark.usefixtures("at_root")
def test_the_problems_of_a_plan_are_known_before_it_runs() -> None:
    assert load_plan("examples/own_space.yaml").problem_modules() == ["examples.own_problem"]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tune_asks_for_no_processes_but_those_that_are_ready(shared_ray: None) -> None:
    @ray.remote(num_cpus=1)
    class Trial:
        def has(self) -> tuple[str | None, bool]:
            return os.environ.get("PL_DISABLE_FORK"), "mtlsearch.search.trials.trainable" in sys.modules

    remote = class_cache._ActorClassCache().get(Trial.__ray_metadata__.modified_class)
    assert not remote._default_options["runtime_env"].get("env_vars"), "with any, Ray starts a process for each trial"
    assert ray.get(Trial.remote().has.remote()) == ("1", True), "what Tune would have set, and the imports"
