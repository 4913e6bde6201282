"""Task heads by name: from a backbone's feature map to landmarks, angles or both, with their losses and decoding.

A new one is a file beside these and its config class in the union below.
"""

from typing import Annotated

from pydantic import Field

from mtlsearch.faces.heads.binned_pose import BinnedPoseHead, BinnedPoseHeadConfig
from mtlsearch.faces.heads.head import Part, SingleTaskHeadConfig, TaskHead, TaskHeadConfig
from mtlsearch.faces.heads.heatmaps import HeatmapHead, HeatmapHeadConfig
from mtlsearch.faces.heads.parameters import ParameterHead, ParameterHeadConfig
from mtlsearch.faces.heads.points import PointHead, PointHeadConfig
from mtlsearch.faces.heads.rotation_6d import Rotation6DHead, Rotation6DHeadConfig

HeadConfig = Annotated[
    BinnedPoseHeadConfig | HeatmapHeadConfig | ParameterHeadConfig | PointHeadConfig | Rotation6DHeadConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "BinnedPoseHead",
    "BinnedPoseHeadConfig",
    "HeadConfig",
    "HeatmapHead",
    "HeatmapHeadConfig",
    "ParameterHead",
    "ParameterHeadConfig",
    "Part",
    "PointHead",
    "PointHeadConfig",
    "Rotation6DHead",
    "Rotation6DHeadConfig",
    "SingleTaskHeadConfig",
    "TaskHead",
    "TaskHeadConfig",
]
