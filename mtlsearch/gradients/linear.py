"""Gradients of linear weights as products, g_t = D_tᵀ A: formed in place, or never (the ghost engine).

A (n, fan_in) is the input of a linear layer, D_t (n, fan_out) the gradient of task t's loss with respect to its output,
both stacked over every use of the weight in the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .gramian import full_precision, weighted_rows
from .tape import Node, rows_of

# What one element of a row costs beside its n multiply-adds, counted in multiply-adds: it is written once and read
# twice, 12 bytes, at the 4 to 5 multiply-adds a byte that CPUs and GPUs balance at.
_TRAFFIC = 54
# The multiply-adds of A Aᵀ are done in float64, and those with its triangular factor are small.
_DOUBLE, _SMALL = 3, 1.5


@dataclass(frozen=True)
class Product:
    """The gradient Σ Dᵀ A of a linear weight for one task, over its uses in the step; not formed yet."""

    pairs: tuple[tuple[Tensor, Tensor], ...]

    @torch.no_grad()
    def write(self, into: Tensor, add: bool) -> None:
        """Set `into` (fan_out, fan_in) to the gradient, or add the gradient to it."""
        for outputs, inputs in self.pairs:
            if add:
                into.addmm_(outputs.T, inputs)
            else:
                torch.mm(outputs.T, inputs, out=into)
            add = True

    @torch.no_grad()
    def formed(self) -> Tensor:
        """The gradient (fan_out, fan_in)."""
        (outputs, inputs), *others = self.pairs
        total = outputs.T @ inputs
        for outputs, inputs in others:
            total.addmm_(outputs.T, inputs)
        return total


@dataclass(eq=False)
class LinearUses:
    """One linear weight, its uses in a step with their inputs, and what the passes of the tasks gave for it."""

    weight: Tensor
    nodes: Sequence[Node]
    inputs: Sequence[Tensor]
    _outputs: dict[int, Tensor] = field(init=False, default_factory=dict)
    _stack: Tensor = field(init=False, default_factory=lambda: torch.empty(0))

    @property
    def edges(self) -> list[GradientEdge]:
        """Where a pass has to stop to give `product` its D."""
        return [GradientEdge(node, 0) for node in self.nodes]

    def product(self, outputs: Sequence[Tensor | None]) -> Product | None:
        """The gradient of one task, from the gradients of the outputs of each use; None if it reaches none."""
        pairs = tuple((d, a) for d, a in zip(outputs, self.inputs) if d is not None)
        return Product(pairs) if pairs else None

    def keep(self, task: int, outputs: Sequence[Tensor | None]) -> Tensor | None:
        """Keep one task's D for `rows` and `combined`, and return it; None if the task reaches no use."""
        fan_out = len(self.weight)
        pieces = [a.new_zeros(len(a), fan_out) if d is None else d for d, a in zip(outputs, self.inputs)]
        self._outputs[task] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return None if all(d is None for d in outputs) else self._outputs[task]

    @torch.no_grad()
    def formed(self, tasks: Sequence[int]) -> dict[int, Tensor]:
        """Each task's gradient (fan_out, fan_in)."""
        return {task: self._outputs[task].T @ self._joined() for task in tasks if bool(self._outputs[task].any())}

    @torch.no_grad()
    def rows(self, tasks: Sequence[int]) -> Tensor:
        """(K, m) with the inner products of the tasks' gradients, which are not formed where n is small.

        With A Aᵀ = L Lᵀ, ⟨D_iᵀA, D_jᵀA⟩ = ⟨LᵀD_i, LᵀD_j⟩: rows of m = n·fan_out numbers instead of fan_in·fan_out.
        Taking inner products of these, rather than summing A Aᵀ ∘ D_i D_jᵀ, keeps the relative error that the gradients
        themselves would give when the terms of the sum cancel.
        """
        inputs, outputs = self._joined(), self._stacked(tasks)
        with full_precision(inputs.device):
            size = len(inputs), *_fans(self.weight), len(tasks)
            if _ghost_cost(*size) > _formed_cost(*size):
                return (outputs.mT @ inputs).flatten(1)
            wide = inputs.double()
            inner = wide @ wide.T
            # As if the rows of A were one long, and D had their lengths: no large row drowns a small one.
            lengths = inner.diagonal().sqrt()
            divisors = torch.where(lengths > 0, lengths, 1.0)
            inner = inner / divisors / divisors[:, None]
            # It can be singular (equal inputs): a shift at float64's rounding makes the factor exist, and moves no
            # inner product by more than that.
            inner.diagonal().add_(1e-14 * len(inner))
            factor = torch.linalg.cholesky_ex(inner).L * lengths[:, None] + 0 * lengths.sum()  # NaN if A is not finite
            return (factor.T.to(inputs.dtype) @ outputs).flatten(1)

    @torch.no_grad()
    def combined(self, tasks: Sequence[int], weights: Tensor) -> Tensor:
        """Σ_k weights[k]·g_k (fan_out, fan_in), by one product."""
        outputs = self._stacked(tasks)
        mixed = weighted_rows(outputs.flatten(1), range(len(tasks)), weights).view(outputs.shape[1:])
        with full_precision(mixed.device):
            return mixed.T @ self._joined()

    def _joined(self) -> Tensor:
        """A (n, fan_in)."""
        return self.inputs[0] if len(self.inputs) == 1 else torch.cat(list(self.inputs))

    def _stacked(self, tasks: Sequence[int]) -> Tensor:
        """D (K, n, fan_out), made once."""
        if len(self._stack) != len(tasks):
            self._stack = torch.stack([self._outputs[task] for task in tasks])
        return self._stack


def forming_pays(nodes: Sequence[Node], weight: Tensor) -> bool:
    """Whether a pass had better stop at D, smaller than the gradient, and have that formed in its row."""
    return sum(rows_of(node) for node in nodes) <= _fans(weight)[1]


def ghost_pays(nodes: Sequence[Node], weight: Tensor, tasks: int) -> bool:
    """Whether the Gramian and the combination of a weight's gradients cost less by `LinearUses` than by rows."""
    rows = sum(rows_of(node) for node in nodes)
    size = rows, *_fans(weight), tasks
    return _ghost_cost(*size) < _rows_cost(*size)


def _fans(weight: Tensor) -> tuple[int, int]:
    fan_out, fan_in = weight.shape
    return fan_out, fan_in


# Costs in multiply-adds.
def _rows_cost(rows: int, fan_out: int, fan_in: int, tasks: int) -> float:
    return tasks * fan_in * fan_out * (rows + _TRAFFIC)


def _formed_cost(rows: int, fan_out: int, fan_in: int, tasks: int) -> float:
    """Formed for the Gramian alone, and the combination once more."""
    return (tasks + 1) * rows * fan_in * fan_out + tasks * fan_in * fan_out * _TRAFFIC


def _ghost_cost(rows: int, fan_out: int, fan_in: int, tasks: int) -> float:
    return rows * rows * (_DOUBLE * fan_in + _SMALL * tasks * fan_out) + rows * fan_in * fan_out
