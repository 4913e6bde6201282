"""The processes that train one run together, each on its part of every batch; alone where torch.distributed is not set
up, as Ray Train and torchrun do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Portion:
    """What a process trains at one time: `rows` of a batch, of which all processes together take `together` then."""

    rows: slice
    together: int

    @property
    def count(self) -> int:
        """Rows of this process; 0 where a batch is too small for all."""
        return self.rows.stop - self.rows.start


class Workers:
    """`rank` of `size` processes. What they exchange is small; gradients are the optimizer's affair."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0

    @property
    def first(self) -> bool:
        """Whether this is the one that validates and writes."""
        return self.rank == 0

    def portions(self, samples: int, most: int | None = None) -> list[Portion]:
        """How this process takes its part of a batch, `most` rows at a time: as many portions as any other takes."""
        ends = [samples * rank // self.size for rank in range(self.size + 1)]
        parts = list(pairwise(ends))
        largest = max(stop - start for start, stop in parts)
        most = largest if most is None else min(most, largest)
        found = []
        for begun in range(0, largest, most):
            cut = [slice(min(start + begun, stop), min(start + begun + most, stop)) for start, stop in parts]
            found.append(Portion(cut[self.rank], sum(rows.stop - rows.start for rows in cut)))
        return found

    def from_first(self, compute: Callable[[], T]) -> T:
        """What `compute` gives in the first process, or the exception that it raises there, in all of them."""
        if self.size == 1:
            return compute()
        told: list[tuple[T | None, Exception | None]] = [(None, None)]
        if self.first:
            try:
                told = [(compute(), None)]
            except Exception as error:  # the others wait for it
                told = [(None, error)]
        dist.broadcast_object_list(told, src=0)
        value, failure = told[0]
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]

    def sum(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Scalars summed over the processes."""
        if self.size == 1 or not values:
            return list(values)
        stacked = torch.stack(list(values))
        dist.all_reduce(stacked)
        return list(stacked.unbind())

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()
