"""Tracking: MLflow. Nothing else of the library knows of it but the commands and the search's observer."""

from mtlsearch.tracking.store import fetch_artifact, is_run_id, resolve_uri
from mtlsearch.tracking.tracker import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker", "fetch_artifact", "is_run_id", "resolve_uri"]
