"""Where a study and its tracking store lie by default. The working folder of a Ray job is temporary: not there."""

from __future__ import annotations

import os
from pathlib import Path

from mtlsearch.errors import InputError
from mtlsearch.tracking.uri import SQLITE, given_uri, resolve_uri

#: of a driver that `ray job submit` started, and of no other
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_RESULTS = "results"
_RESULTS_OF_JOBS = "mtlsearch-results"


def in_job() -> bool:
    """Whether this process is the driver of a Ray job."""
    return _JOB in os.environ


def results_folder(given: Path | None) -> Path:
    """The folder for studies: what is given, else `results` here, in a job ~/mtlsearch-results.

    Raises:
        InputError: in a job, a relative folder was given.
    """
    if not in_job():
        return given or Path(_RESULTS)
    if given is None:
        return Path.home() / _RESULTS_OF_JOBS
    if not given.is_absolute():
        raise InputError(
            f"--results {given} is relative, and the working folder of a Ray job is temporary; give an absolute "
            f"folder, or none for {Path.home() / _RESULTS_OF_JOBS}"
        )
    return given


def tracking_uri(given: str | None, results: Path) -> str:
    """The tracking store: what is given, or MLFLOW_TRACKING_URI, else mlflow.db here, in a job beside the studies.

    Raises:
        InputError: in a job, a relative database was given.
    """
    chosen = given_uri(given)
    if not in_job():
        return resolve_uri(chosen)
    if chosen is not None and resolve_uri(chosen) != chosen:
        raise InputError(
            f"--tracking-uri {chosen} is relative, and the working folder of a Ray job is temporary; give an absolute "
            "one, sqlite:////home/me/mlflow.db, or that of a server"
        )
    if chosen is None:
        results.mkdir(parents=True, exist_ok=True)
    return chosen or f"{SQLITE}{results / 'mlflow.db'}"
