"""Many task gradients -> one gradient. Needs torch and numpy only, and imports nothing else of mtlsearch.

The list of strategies is `mtlsearch.strategies()`; here `strategies` is the folder that holds them.
"""

from .diagnostics import Diagnostics
from .hyperparameters import Hyperparameter
from .optimizer import MultiTaskOptimizer, PCGrad
from .registry import Paper, StrategyInfo, get_strategy, strategy_info
from .strategy import (
    FunctionStrategy,
    GramianStrategy,
    LossStrategy,
    RowStrategy,
    Scalarization,
    SolvedStrategy,
    Step,
    Strategy,
)

__all__ = [
    "Diagnostics",
    "FunctionStrategy",
    "GramianStrategy",
    "Hyperparameter",
    "LossStrategy",
    "MultiTaskOptimizer",
    "PCGrad",
    "Paper",
    "RowStrategy",
    "Scalarization",
    "SolvedStrategy",
    "Step",
    "Strategy",
    "StrategyInfo",
    "get_strategy",
    "strategy_info",
]
