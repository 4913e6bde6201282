"""How a strategy's step is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from ..graph import ParameterSets
from ..ranks import Ranks
from ..strategy import GramianStrategy, LossStrategy, RowStrategy, Strategy
from .base import Call, Engine
from .cut import FeatureEngine, RepeatingEngine
from .loss import LossEngine
from .rows import RowsEngine

__all__ = ["Call", "Engine", "EngineName", "FeatureEngine", "check_engine", "engine_for"]

EngineName = Literal["auto", "rows", "ghost", "feature"]
_NAMES = ("auto", "rows", "ghost", "feature")


def engine_for(
    strategy: Strategy,
    shared: Iterable[Tensor] | nn.Module | None,
    name: EngineName,
    update_every: int,
    ranks: Ranks | None,
) -> Engine:
    """The engine that serves a strategy."""
    check_engine(strategy, name, update_every)
    sets = ParameterSets(shared)
    if ranks is not None and ranks.sharded:
        _check_sharded(strategy, name, update_every)
    engine: Engine
    if isinstance(strategy, LossStrategy):
        engine = LossEngine(strategy, sets, ranks)
    elif name == "feature":
        assert isinstance(strategy, GramianStrategy)
        engine = FeatureEngine(strategy, sets, ranks)
    elif isinstance(strategy, (GramianStrategy, RowStrategy)):
        engine = RowsEngine(strategy, sets, ranks, name)
    else:
        raise TypeError(
            "a strategy must be a GramianStrategy, a RowStrategy or a LossStrategy, but got "
            f"{type(strategy).__name__}, a plain Strategy"
        )
    return engine if update_every == 1 else RepeatingEngine(engine, update_every, ranks)


def check_engine(strategy: Strategy, name: EngineName, update_every: int) -> None:
    """ValueError where an engine is unknown or does not serve a strategy."""
    if name not in _NAMES:
        raise ValueError(f"engine must be one of {', '.join(_NAMES)}, but got {name!r}")
    if isinstance(update_every, bool) or not isinstance(update_every, int) or update_every < 1:
        raise ValueError(f"update_every must be an integer of at least 1, but got {update_every!r}")
    if name == "feature" or update_every > 1:
        _check_weights_alone(strategy, "engine='feature'" if name == "feature" else f"update_every={update_every}")


def _check_sharded(strategy: Strategy, name: EngineName, update_every: int) -> None:
    if name == "feature" or update_every > 1:
        raise ValueError(
            "engine='feature' and update_every stop backwards within the graph, which FSDP's sharded parameters do not "
            "support; use engine='auto' and update_every=1, or DistributedDataParallel"
        )
    if isinstance(strategy, RowStrategy):
        raise ValueError(
            f"strategy {strategy.name!r} needs whole gradients, and FSDP gives each rank a piece; use "
            "DistributedDataParallel, or a strategy that weighs gradients by their Gramian (pcgrad, cagrad, mgda, …)"
        )


def _check_weights_alone(strategy: Strategy, what: str) -> None:
    """Raise unless all that a strategy does is to weigh task gradients by their Gramian."""
    reaches_heads = type(strategy).specific_weights is not Strategy.specific_weights
    if not isinstance(strategy, GramianStrategy) or reaches_heads or strategy.needs_tasks:
        raise ValueError(
            f"{what} needs a strategy that weighs task gradients by their Gramian alone (pcgrad, cagrad, mgda, …), but "
            f"{strategy.name!r} also weighs losses or combines gradients element by element"
        )
