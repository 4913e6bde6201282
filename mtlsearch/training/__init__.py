"""Training: run config, problem protocol, loop, checkpoints, records. Knows nothing of faces or of search."""

from mtlsearch.training.config import RunConfig, StrategyConfig, TrainingConfig
from mtlsearch.training.evaluation import Scores, evaluate_checkpoint
from mtlsearch.training.loop import TrainingDiverged, TrainingResult, first_objective, train
from mtlsearch.training.problem import Problem, find_problem
from mtlsearch.training.recipes import apply_overrides, load_run_config, parse_run_config, recipe_names, recipe_tree
from mtlsearch.training.record import RunRecord, find_record, load_record
from mtlsearch.training.reproduction import Reproduction, reproduce
from mtlsearch.training.run import FinishedRun, run_training

__all__ = [
    "FinishedRun",
    "Problem",
    "Reproduction",
    "RunConfig",
    "RunRecord",
    "Scores",
    "StrategyConfig",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingResult",
    "apply_overrides",
    "evaluate_checkpoint",
    "find_problem",
    "find_record",
    "first_objective",
    "load_record",
    "load_run_config",
    "parse_run_config",
    "recipe_names",
    "recipe_tree",
    "reproduce",
    "run_training",
    "train",
]
