"""The search of benchmarks/search_cost/waves.yaml with Optuna alone, as its documentation parallelises one: the script
is started once for each process, and all share a study in sqlite.

    python benchmarks/search_cost/plain_optuna.py --storage sqlite:///DIR/optuna.db --trials 8 --folder DIR
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import optuna

from mtlsearch.training import load_run_config, run_training

BASE = Path(__file__).with_name("waves_base.yaml")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", required=True)
    parser.add_argument("--trials", type=int, required=True, help="of this process")
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoints and records")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of mtlsearch.tune")
    parser.add_argument("--imports", action="store_true", help="import all that mtlsearch.tune does")
    options = parser.parse_args()
    if options.imports:
        pass

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        lr = trial.suggest_float("lr", 1e-3, 0.1, log=True)
        decay = trial.suggest_float("weight_decay", 1e-4, 0.1, log=True)
        drawn = [f"optimizer.lr={lr!r}", f"optimizer.weight_decay={decay!r}", *options.overrides]
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        best = run_training(load_run_config(str(BASE), drawn), directory=folder, threads=1).result.best
        return best["val/frequency_error"], best["val/phase_error"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True)
    study = optuna.create_study(
        storage=options.storage,
        study_name="plain",
        directions=["minimize", "minimize"],
        sampler=sampler,
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=options.trials)


if __name__ == "__main__":
    main()
