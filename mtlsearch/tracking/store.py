"""Where MLflow keeps runs: by default one sqlite file in the working folder."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mtlsearch._masking import masked, without_secrets
from mtlsearch.errors import InputError
from mtlsearch.tracking.names import EXPERIMENT
from mtlsearch.tracking.uri import SQLITE, store_error

# read by MLflow's HTTP client, whose own patience with a dead server is minutes per call; the writer tries again anyhow
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def open_store(uri: str) -> tuple[MlflowClient, str]:
    """A client, and the id of our experiment, database and experiment made if need be.

    Two processes that open a fresh database at once race in its migrations, so a lock file lets one do it.

    Raises:
        InputError: the store cannot be opened.
    """
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if not uri.startswith(SQLITE):
            client = MlflowClient(uri)
            return client, _experiment(client, None)
        path = Path(uri[len(SQLITE) :])
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            client = MlflowClient(uri)
            return client, _experiment(client, path.parent / "mlartifacts")
    except Exception as error:  # sqlalchemy, drivers and HTTP clients each have their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise store_error(uri, reason) from None


def _experiment(client: MlflowClient, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, artifacts.as_uri() if artifacts else None))
    except MlflowException:  # someone else made it in between, on a server
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return str(found.experiment_id)


def fetch_artifact(uri: str, run_id: str, name: str) -> Path:
    """A local copy of a run's artifact.

    Raises:
        InputError: the store has no such run, or the run no such artifact.
    """
    if uri.startswith(SQLITE) and not Path(uri[len(SQLITE) :]).exists():
        raise InputError(f"there is no MLflow store {uri}; give --tracking-uri")
    client, _ = open_store(uri)
    try:
        return Path(client.download_artifacts(run_id, name, tempfile.mkdtemp(prefix="mtlsearch-")))
    except (MlflowException, OSError) as error:
        reason = without_secrets(str(error).splitlines()[0], uri)
        raise InputError(f"run {run_id} in {masked(uri)} has no {name} ({reason}); is this the right store?") from None
