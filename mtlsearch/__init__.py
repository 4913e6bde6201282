"""mtlsearch: find and train the best multi-task model for 3D face landmarks and head pose.

The names below are imported when first used, so that `from mtlsearch import PCGrad` loads torch and nothing
else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gradients.diagnose import diagnose
    from .gradients.optimizer import MultiTaskOptimizer, PCGrad
    from .gradients.registry import get_strategy, strategies

__version__ = "0.1.0"

__all__ = ["MultiTaskOptimizer", "PCGrad", "__version__", "diagnose", "get_strategy", "strategies"]

_HOME = {
    "MultiTaskOptimizer": "gradients.optimizer",
    "PCGrad": "gradients.optimizer",
    "diagnose": "gradients.diagnose",
    "get_strategy": "gradients.registry",
    "strategies": "gradients.registry",
}
_SUBMODULES = ("faces", "gradients", "search", "testing", "tracking", "training")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _SUBMODULES:
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise  # an optional dependency is missing: its name is what helps
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
