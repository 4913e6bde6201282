"""The processes of a data-parallel run: what they tell each other before, during and after a combination.

Every rank computes task gradients on its part of the batch. Combined are the task gradients of the whole batch, which
are sums over ranks: projecting on each rank and averaging afterwards would be another algorithm.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from .tape import differentiate

Group: TypeAlias = "dist.ProcessGroup | bool | None"

# The kinds of exchange, told first.
_LOSSES, _MASKS, _FAILURE = 0, 1, 2
_LENGTHS = {_LOSSES: "know different numbers of tasks", _MASKS: "train different numbers of parameters"}
_HOW = (
    "every rank must call backward and combine equally often and with the same tasks (None for those without labels in "
    "its part of the batch), on models that hold the same parameters"
)


def ranks_of(group: Group) -> Ranks | None:
    """The ranks to combine over: those of `group`, by default of all processes; None for this one alone."""
    if group is False or not (dist.is_available() and dist.is_initialized()):
        return None
    ranks = Ranks(None if group is None or group is True else group)
    return ranks if ranks.size > 1 else None


class Ranks:
    """A process group, by what the engines ask of it. All methods are collective: every rank calls them in turn."""

    sharded = False
    """Whether a rank holds pieces of the parameters instead of all of them."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.size = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self._nccl = dist.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if self._nccl else torch.device("cpu")

    def __deepcopy__(self, memo: object) -> Ranks:
        return self  # a process group is no one's to copy

    def stand_in(self, parameter: Tensor) -> Tensor:
        """The tensor that the engines see for a parameter."""
        return parameter

    def publish(self) -> None:
        """Called when the `.grad` of what `stand_in` gave has been filled."""

    def differentiate(self, loss: Tensor, inputs: Sequence[Tensor], retain: bool = False) -> tuple[Tensor | None, ...]:
        """The gradients of a loss on this rank, None for what is not reached. Past the hooks of a DDP wrapper."""
        return differentiate(loss, inputs, retain=retain)

    def once(self, term: Tensor) -> Tensor:
        """A term of the loss that every rank has, so that it counts once in the loss of the whole batch."""
        return term / self.size

    def gather(self, numbers: Tensor) -> Tensor:
        """(n,) of each rank -> (ranks, n) on the CPU, the same bits everywhere."""
        numbers = numbers.to(self._device).contiguous()
        gathered = numbers.new_empty(self.size, *numbers.shape)
        dist.all_gather_into_tensor(gathered.view(-1), numbers.view(-1), group=self.group)
        return gathered.cpu()

    def _meet(self, what: int, index: int, length: int, digest: float = 0.0) -> Tensor:
        """The first word of every exchange: what it is, at which step, of what length. The ranks' digests.

        RuntimeError, on all ranks, when they do not mean the same, or one has failed.
        """
        heard = self.gather(torch.tensor([what, index, length, digest], dtype=torch.float64))
        if bool((heard[:, 0] == _FAILURE).any()) and what != _FAILURE:
            failed = [rank for rank, said in enumerate(heard[:, 0].tolist()) if said == _FAILURE]
            raise RuntimeError(f"rank {failed[0]} has failed, and says why; the others stop with it")
        if what == _FAILURE:
            return heard[:, 3]
        for column, differ in ((0, "do different things"), (1, "are at different steps"), (2, _LENGTHS[what])):
            if not bool((heard[:, column] == heard[0, column]).all()):
                raise RuntimeError(f"ranks {differ} ({heard[:, column].int().tolist()}): {_HOW}")
        return heard[:, 3]

    def fail(self) -> None:
        """Tell the other ranks, who are about to exchange losses, that this one will not."""
        self._meet(_FAILURE, 0, 0)

    def share(
        self, losses: Mapping[int, Tensor], counts: Mapping[int, float], names: Sequence[str], index: int
    ) -> tuple[dict[int, float], dict[int, Tensor]]:
        """Each task's share of this rank and its loss over all ranks.

        A task's loss over the whole batch is Σ_r count_r·loss_r / Σ_r count_r over the ranks that have it; the share is
        count_r / Σ count, 0 where this rank has none. Raises RuntimeError when ranks are out of step, on all of them.
        """
        self._meet(_LOSSES, index, len(names))
        told = torch.zeros(1 + 2 * len(names), dtype=torch.float64)
        told[0] = _digest(*names)
        for task, loss in losses.items():
            told[1 + task] = counts.get(task, 1.0)
            told[1 + len(names) + task] = loss.detach().double()
        heard = self.gather(told)
        if not bool((heard[:, 0] == heard[0, 0]).all()):
            raise RuntimeError(f"ranks name different tasks: {_HOW}")
        count, loss = heard[:, 1:].view(self.size, 2, len(names)).unbind(1)
        total = count.sum(0)
        present = [task for task in range(len(names)) if total[task] > 0]
        # A rank without the task says 0·0.
        values = torch.where(count > 0, count * loss, 0).sum(0) / total
        return (
            {task: float(count[self.rank, task] / total[task]) for task in present},
            {task: values[task] for task in present},
        )

    def agree(self, masks: Sequence[int]) -> list[int]:
        """The union over ranks of bit masks, of which every rank has the same number in the same order."""
        same = self._meet(_MASKS, 0, len(masks), _digest(*masks))
        if bool((same == same[0]).all()):
            return list(masks)
        union = 0
        for theirs in self.gather(torch.tensor(masks, dtype=torch.int64)):
            union = theirs | union
        return union.tolist()  # type: ignore[attr-defined]

    def check_parameters(self, parameters: Sequence[Tensor]) -> None:
        """RuntimeError, on all ranks, when their parameters differ."""
        own = torch.stack([p.detach().double().sum().cpu() for p in parameters]) if parameters else torch.zeros(1)
        theirs = self.gather(own)
        if bool((theirs - theirs[0]).abs().max() > 1e-6 * (1 + theirs[0].abs().max())):
            raise RuntimeError(
                "ranks hold different parameters: start them from the same seed or checkpoint, wrap the model in "
                "DistributedDataParallel or broadcast its parameters, and let every gradient come through this "
                "optimizer's backward (a loss.backward() beside it is not averaged over ranks)"
            )

    def reduce_scatter(self, row: Tensor) -> Tensor:
        """(P,) of each rank, P divisible by their number -> (P / ranks,): this rank's piece of the sum."""
        if self._nccl:
            piece = row.new_empty(row.numel() // self.size)
            dist.reduce_scatter_tensor(piece, row, group=self.group)
            return piece
        # gloo's own reduce_scatter moves as much as an all-reduce; this moves a half, and sums in rank order.
        pieces = torch.empty_like(row)
        dist.all_to_all_single(pieces, row, group=self.group)
        return pieces.view(self.size, -1).sum(0)

    def all_gather(self, piece: Tensor) -> Tensor:
        """(P / ranks,) of each rank -> (P,)."""
        whole = piece.new_empty(piece.numel() * self.size)
        dist.all_gather_into_tensor(whole, piece, group=self.group)
        return whole

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def sum_small(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a few numbers, in rank order: the same bits everywhere."""
        return self.gather(tensor).sum(0).to(tensor.device)

    def sum_gradients(self, gradients: Mapping[Tensor, Tensor], parameters: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """Gradients summed over ranks, of every parameter that any rank has one for; one all-reduce a dtype."""
        reached = self.agree([int(parameter in gradients) for parameter in parameters])
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for parameter, has in zip(parameters, reached):
            if has:
                kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        summed: dict[Tensor, Tensor] = {}
        for (device, dtype), members in kinds.items():
            sizes = [member.numel() for member in members]
            flat = torch.zeros(sum(sizes), device=device, dtype=dtype)
            for piece, member in zip(flat.split(sizes), members):
                if (gradient := gradients.get(member)) is not None:
                    piece.view(member.shape).copy_(gradient.to_dense() if gradient.is_sparse else gradient)
            self.sum_(flat)
            summed.update((member, piece.view(member.shape)) for piece, member in zip(flat.split(sizes), members))
        return summed


def _digest(*things: Any) -> float:
    """A number below 2⁵³ that tells sequences apart; exact in float64."""
    return struct.unpack("<Q", hashlib.blake2b(repr(things).encode(), digest_size=8).digest())[0] >> 11
