"""Losses by name. A new one is a file beside these and its class in the union below."""

from typing import Annotated

from pydantic import Field

from mtlsearch.faces.losses.l1 import L1
from mtlsearch.faces.losses.mse import MSE
from mtlsearch.faces.losses.smooth_l1 import SmoothL1
from mtlsearch.faces.losses.weighted import WeightedLoss
from mtlsearch.faces.losses.wing import Wing, wing
from mtlsearch.faces.losses.wing_mse import WingMSE

LossConfig = Annotated[L1 | MSE | SmoothL1 | Wing | WingMSE, Field(discriminator="kind")]

__all__ = ["L1", "MSE", "LossConfig", "SmoothL1", "WeightedLoss", "Wing", "WingMSE", "wing"]
