"""Which store is meant, and which run: answered without MLflow, which takes a second to import."""

from __future__ import annotations

import os
import re
from pathlib import Path

SQLITE = "sqlite:///"


def resolve_uri(uri: str | None) -> str:
    """The tracking URI that is meant: the option, else MLFLOW_TRACKING_URI, else sqlite in the working folder.

    A relative sqlite path is made absolute, so that it names the same file from every process and folder.
    """
    uri = given_uri(uri) or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE) and not uri.startswith("sqlite:////"):
        return f"{SQLITE}{Path(uri[len(SQLITE) :]).absolute()}"
    return uri


def given_uri(uri: str | None) -> str | None:
    """What a user gave: the option, else MLFLOW_TRACKING_URI."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def is_run_id(text: str) -> bool:
    """Whether `text` reads like an MLflow run id rather than a path."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None
