"""Regressors by name: from a feature map (N, C, H, W) to numbers (N, outputs). A new one is a file and its class here.

Task heads (`mtlsearch.faces.heads`) say what the numbers mean.
"""

from typing import Annotated

from pydantic import Field

from mtlsearch.faces.regressors.linear import LinearRegressor, LinearRegressorConfig
from mtlsearch.faces.regressors.mbconv import MBConvRegressor, MBConvRegressorConfig

RegressorConfig = Annotated[LinearRegressorConfig | MBConvRegressorConfig, Field(discriminator="kind")]

__all__ = ["LinearRegressor", "LinearRegressorConfig", "MBConvRegressor", "MBConvRegressorConfig", "RegressorConfig"]
