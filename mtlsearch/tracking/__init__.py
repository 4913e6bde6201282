"""Tracking: MLflow. Nothing else of the library knows of it but the commands and the search's observer."""

from typing import TYPE_CHECKING

from mtlsearch._imports import lazy_names
from mtlsearch.tracking.uri import is_run_id, resolve_uri

if TYPE_CHECKING:
    from mtlsearch.tracking.store import fetch_artifact
    from mtlsearch.tracking.tracker import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker", "fetch_artifact", "is_run_id", "resolve_uri"]

# MLflow takes a second to import: a search does it while Ray starts
__getattr__ = lazy_names(__name__, {"TrackedRun": "tracker", "Tracker": "tracker", "fetch_artifact": "store"})
