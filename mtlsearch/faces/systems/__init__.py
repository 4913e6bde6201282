"""The published systems by name. A new one is a file beside these and its line here."""

from mtlsearch.faces.systems.morphable import Morphable
from mtlsearch.faces.systems.system import FaceStatistics, Prediction, System, Targets

SYSTEMS: dict[str, type[Morphable]] = {"morphable": Morphable}

__all__ = ["SYSTEMS", "FaceStatistics", "Morphable", "Prediction", "System", "Targets"]
