"""Which store is meant, and which run: answered without MLflow, which takes a second to import."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from mtlsearch._masking import masked, without_secrets
from mtlsearch.errors import InputError

SQLITE = "sqlite:///"
_SQLITE_HEADER = b"SQLite format 3\0"


def resolve_uri(uri: str | None) -> str:
    """The tracking URI that is meant: the option, else MLFLOW_TRACKING_URI, else sqlite in the working folder.

    A relative sqlite path is made absolute, so that it names the same file from every process and folder.
    """
    uri = given_uri(uri) or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE) and not uri.startswith("sqlite:////"):
        return f"{SQLITE}{Path(uri[len(SQLITE) :]).absolute()}"
    return uri


def check_uri(uri: str) -> None:
    """Raises InputError for a sqlite store that cannot be opened or made, before anything is started for its sake."""
    if not uri.startswith(SQLITE):
        return
    path = Path(uri[len(SQLITE) :])
    there = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with path.open("rb") if path.exists() else tempfile.TemporaryFile(dir=there) as file:
            start = file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise store_error(uri, error.strerror or type(error).__name__) from None
    if start not in (b"", _SQLITE_HEADER):
        raise store_error(uri, "file is not a database")


def store_error(uri: str, reason: str) -> InputError:
    """What a store that cannot be used is answered with."""
    reason = without_secrets(reason, uri)
    return InputError(f"MLflow store {masked(uri)} cannot be opened ({reason}); give --tracking-uri")


def given_uri(uri: str | None) -> str | None:
    """What a user gave: the option, else MLFLOW_TRACKING_URI."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def is_run_id(text: str) -> bool:
    """Whether `text` reads like an MLflow run id rather than a path."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None
