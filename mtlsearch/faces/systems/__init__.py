"""The systems by name. A new one is a file beside these and its line here."""

from mtlsearch.faces.systems.cascade import Cascade
from mtlsearch.faces.systems.composed import Composed
from mtlsearch.faces.systems.dense import Dense
from mtlsearch.faces.systems.morphable import Morphable
from mtlsearch.faces.systems.multi_head import MultiHead
from mtlsearch.faces.systems.system import System

SYSTEMS: dict[str, type[System]] = {"morphable": Morphable, "dense": Dense, "cascade": Cascade, "composed": Composed}

__all__ = ["SYSTEMS", "Cascade", "Composed", "Dense", "Morphable", "MultiHead", "System"]
