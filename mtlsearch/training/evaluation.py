"""Scoring a checkpoint: the weights, the config inside the file, the split's metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.training import environment
from mtlsearch.training.checkpoint import load_weights
from mtlsearch.training.loop import choose_device
from mtlsearch.training.problem import Progress, find_problem
from mtlsearch.training.recipes import apply_overrides, parse_run_config

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Scores:
    """A checkpoint's metrics on one split, and those of predicting the training split's mean."""

    metrics: dict[str, float]
    trivial: dict[str, float]
    parameters: int
    epoch: int
    data: str

    def table(self) -> Table:
        table = Table(header_style="bold", box=None, pad_edge=False)
        for column in ("metric", "value", "constant prediction", "ratio"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for name, value in self.metrics.items():
            constant = self.trivial[name]
            ratio = f"{value / constant:.3f}" if constant else "–"
            table.add_row(name, f"{value:.3f}", f"{constant:.3f}", ratio)
        return table


def evaluate_checkpoint(
    path: Path,
    split: str = "test",
    *,
    overrides: Iterable[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores the weights at `path` on a split of the data that their config names.

    Raises:
        InputError: the file is no checkpoint of ours, the split is unknown, or the weights do not fit the config.
    """
    if split not in SPLITS:
        raise InputError(f"--split: {unknown_name('split', split, SPLITS)}")
    weights = load_weights(path)
    config = parse_run_config(apply_overrides(weights.config, overrides), str(path))
    environment.set_threads(threads or environment.available_cpus())
    problem = find_problem(config.problem)(config)
    problem.prepare(progress)
    device = choose_device(config.training.device)
    problem.to(device)
    model = problem.build_model().to(device)
    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the config: {str(error).splitlines()[-1].strip()}") from None
    model.eval()
    with torch.inference_mode():
        metrics = problem.evaluate(model, split)
    count = sum(parameter.numel() for parameter in model.parameters())
    return Scores(metrics, problem.trivial_metrics(split), count, weights.epoch, problem.describe_data())
