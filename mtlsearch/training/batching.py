"""Which samples an epoch sees, in what order and in what portions: the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mtlsearch.errors import InputError
from mtlsearch.training.config import RunConfig
from mtlsearch.training.problem import DividesBatches, Problem
from mtlsearch.training.seeding import generator
from mtlsearch.training.workers import Portion


def epoch_order(problem: Problem, config: RunConfig, epoch: int) -> torch.Tensor:
    """Indices of the training samples of an epoch, in their order."""
    order = torch.randperm(problem.size("train"), generator=generator(config.seed, "order", epoch))
    return order[: _samples(problem, config, epoch)]


def batch_counts(problem: Problem, config: RunConfig) -> list[int]:
    """How many micro-batches each epoch of the run has."""
    samples = [_samples(problem, config, epoch) for epoch in range(1, config.training.epochs + 1)]
    return [len(split(torch.arange(count), config.training.batch_size)) for count in samples]


def split(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """`order` in batches of `size`. A single left-over sample joins the last: batch norm has no variance of one."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def grouped(items: list[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    """`size` of them at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def load(
    problem: Problem, indices: torch.Tensor, draws: torch.Generator, portions: Sequence[Portion]
) -> Iterator[tuple[Portion, Any]]:
    """The portions of a batch with their data, None where one has no rows.

    The augmentation is that of the whole batch: a sample is drawn alike whoever trains it, and whatever the portions.
    """
    count = len(indices)
    if [portion.rows for portion in portions] == [slice(0, count)]:
        yield portions[0], problem.batch(indices, draws)
        return
    if isinstance(problem, DividesBatches):
        state = draws.get_state()
        for portion in portions:
            draws.set_state(state)
            rows = problem.part_of_batch(indices, draws, portion.rows) if portion.count else None
            yield portion, rows
        if not portions[-1].count:  # nothing was drawn for it
            draws.set_state(state)
            problem.part_of_batch(indices, draws, slice(0, 1))
        return
    whole = problem.batch(indices, draws)
    for portion in portions:
        yield portion, _rows(whole, portion.rows, count) if portion.count else None


def _samples(problem: Problem, config: RunConfig, epoch: int) -> int:
    return max(1, round(config.training.stage_of(epoch).data * problem.size("train")))


def _rows(batch: Any, rows: slice, count: int) -> Any:
    """Rows of every tensor of a batch."""
    if isinstance(batch, torch.Tensor) and batch.ndim and len(batch) == count:
        return batch[rows]
    if isinstance(batch, (tuple, list)):
        return type(batch)(_rows(item, rows, count) for item in batch)
    if isinstance(batch, dict):
        return {key: _rows(item, rows, count) for key, item in batch.items()}
    raise InputError(
        f"a batch with a {type(batch).__name__} cannot be divided among workers or into smaller portions: let batch() "
        "give tensors, tuples, lists and dicts of them with a sample a row, or give the problem a part_of_batch()"
    )
