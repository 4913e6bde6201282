"""Parameters sharded over ranks by FSDP2 (`fully_shard`): every rank holds a piece of each, and of its gradients.

FSDP takes the mean of a gradient over ranks as soon as a backward has made it, and gives each rank its piece. So the
rows of a rank are pieces of the columns from the start: Gramians add up, and a combination needs no communication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .ranks import Group, Ranks, ranks_of


def is_sharded(parameter: Tensor) -> bool:
    return hasattr(parameter, "device_mesh") and hasattr(parameter, "placements")


def ranks_for(group: Group, parameters: Sequence[Tensor]) -> Ranks | None:
    """The ranks that train these parameters together, sharded or not; None for this process alone."""
    sharded = [parameter for parameter in parameters if is_sharded(parameter)]
    if not sharded:
        return ranks_of(group)
    if group is False:
        raise ValueError("sharded parameters are trained by all processes together: process_group cannot be False")
    if len(sharded) < len(parameters):
        raise ValueError(
            f"{len(parameters) - len(sharded)} of {len(parameters)} parameters are not sharded over ranks, the others "
            "are; call fully_shard on the whole model too, after its parts"
        )
    return ShardedRanks(sharded)


class ShardedRanks(Ranks):
    """Ranks that hold pieces of the parameters. The engines see stand-ins: plain tensors, as large as the pieces."""

    sharded = True

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__(None)
        self._stand_ins: dict[Tensor, Tensor] = {}
        self._of: dict[Tensor, Tensor] = {}
        mesh = parameters[0].device_mesh  # type: ignore[attr-defined]
        if mesh.size() != self.size:
            raise ValueError(
                f"parameters are sharded over {mesh.size()} of {self.size} processes; only meshes over all processes "
                "can be combined"
            )
        copies = {_copies(parameter) for parameter in parameters}
        if len(copies) > 1:
            raise ValueError("parameters are sharded in different ways; use one fully_shard mesh for the whole model")
        # How many ranks hold the same piece (hybrid sharding).
        self._copies = copies.pop()

    def stand_in(self, parameter: Tensor) -> Tensor:
        """A plain tensor for a sharded parameter, the same one each time. What is no such parameter stays itself."""
        if not is_sharded(parameter):
            return parameter
        if parameter not in self._stand_ins:
            piece = torch.empty_like(parameter.to_local()).requires_grad_(parameter.requires_grad)  # type: ignore[attr-defined]
            self._stand_ins[parameter], self._of[piece] = piece, parameter
        self._stand_ins[parameter].requires_grad_(parameter.requires_grad)
        return self._stand_ins[parameter]

    def publish(self) -> None:
        """Add the stand-ins' `.grad` to that of their parameters."""
        from torch.distributed.tensor import DTensor

        for piece, parameter in self._of.items():
            if piece.grad is None:
                continue
            if parameter.grad is None:
                parameter.grad = DTensor.from_local(
                    piece.grad,
                    parameter.device_mesh,  # type: ignore[attr-defined]
                    parameter.placements,  # type: ignore[attr-defined]
                    shape=parameter.shape,
                    stride=parameter.stride(),
                )
            else:
                parameter.grad.to_local().add_(piece.grad)  # type: ignore[attr-defined]
            piece.grad = None

    def differentiate(self, loss: Tensor, inputs: Sequence[Tensor], retain: bool = False) -> tuple[Tensor | None, ...]:
        """Gradients by a whole backward, since `torch.autograd.grad` does not reach sharded parameters."""
        parameters = [self._of.get(piece, piece) for piece in inputs]
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            loss.backward(retain_graph=retain)
            gradients = [parameter.grad for parameter in parameters]
        finally:
            for parameter, old in zip(parameters, before):
                parameter.grad = old
        return tuple(g.to_local() if g is not None and is_sharded(g) else g for g in gradients)  # type: ignore[attr-defined]

    def share(
        self, losses: Mapping[int, Tensor], counts: Mapping[int, float], names: Sequence[str], index: int
    ) -> tuple[dict[int, float], dict[int, Tensor]]:
        shares, values = super().share(losses, counts, names, index)
        present = self.gather(torch.tensor([float(task in losses) for task in values], dtype=torch.float64))
        if not bool(present.all()):
            missing = [names[task] for task, given in zip(values, present.all(0)) if not given]
            raise RuntimeError(
                f"not every rank has a loss for {', '.join(missing)}: with sharded parameters all ranks make the same "
                "backwards; give a loss of zero from the model's output (output.sum() * 0) and count 0 instead of None"
            )
        return {task: share * self.size for task, share in shares.items()}, values  # FSDP takes the mean over ranks

    def once(self, term: Tensor) -> Tensor:
        return term  # the mean over ranks, not the sum

    def check_parameters(self, parameters: Sequence[Tensor]) -> None:
        """Nothing to compare: no two ranks hold the same piece."""

    def reduce_scatter(self, row: Tensor) -> Tensor:
        return row

    def all_gather(self, piece: Tensor) -> Tensor:
        return piece

    def sum_small(self, tensor: Tensor) -> Tensor:
        return super().sum_small(tensor) / self._copies

    def sum_gradients(self, gradients: Mapping[Tensor, Tensor], parameters: Sequence[Tensor]) -> dict[Tensor, Tensor]:
        """Pieces are summed already; what is no piece, a strategy's own parameter, takes the mean as FSDP does."""
        plain = {p: g for p, g in gradients.items() if p not in self._of}
        summed = super().sum_gradients(plain, [p for p in parameters if p not in self._of])
        return {p: g for p, g in gradients.items() if p in self._of} | {p: g / self.size for p, g in summed.items()}


def _copies(parameter: Tensor) -> int:
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    copies = 1
    for dimension, placement in enumerate(placements):
        if placement.is_replicate():
            copies *= mesh.size(dimension)
        elif not placement.is_shard():
            raise ValueError(f"parameters may be sharded or replicated, but one has the placement {placement}")
    return copies
