"""Names of metrics, parameters and tags in the tracker. docs/tracking.md lists them; they do not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlsearch.training.merge import flatten

EXPERIMENT = "mtlsearch"
PARENT_TAG = "mlflow.parentRunId"
COMMIT_TAG = "mlflow.source.git.commit"

#: MLflow refuses longer values and larger batches
_LONGEST_PARAMETER = 6000
METRICS_PER_BATCH = 1000
PARAMETERS_PER_BATCH = 100
TAGS_PER_BATCH = 100


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """A run config as MLflow's flat parameters: `strategy.name`, `losses.landmarks.weight`, …"""
    return {key: str(value)[:_LONGEST_PARAMETER] for key, value in flatten(config).items()}


def environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """`environment.code.digest`, `environment.versions.torch`, `environment.threads`, … and the git commit."""
    tags = {key: str(value) for key, value in flatten(environment, "environment.").items()}
    if "environment.code.commit" in tags:
        tags[COMMIT_TAG] = tags["environment.code.commit"]
    return tags
