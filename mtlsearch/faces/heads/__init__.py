"""Heads by name: from a backbone's feature map to numbers. A new one is a file and its class in the union."""

from typing import Annotated

from pydantic import Field

from mtlsearch.faces.heads.linear import LinearHead, LinearHeadConfig
from mtlsearch.faces.heads.mbconv import MBConvHead, MBConvHeadConfig

HeadConfig = Annotated[LinearHeadConfig | MBConvHeadConfig, Field(discriminator="kind")]

__all__ = ["HeadConfig", "LinearHead", "LinearHeadConfig", "MBConvHead", "MBConvHeadConfig"]
