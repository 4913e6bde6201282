"""The autograd graph of one step's losses, walked once: which task reaches what, and where the tasks part."""

from __future__ import annotations

import functools
import operator
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

Node = Any  # torch.autograd.graph.Node, whose attributes depend on the operation

# The autograd node of a torch.compile'd region (AOTAutograd). It reaches every parameter of the region from every
# output, and gives zeros where there is no dependence.
_COMPILED = "CompiledFunctionBackward"
_REENTRANT_CHECKPOINT = "CheckpointFunctionBackward"
# Nodes that pass input i to output i: of DDP, and of modules with backward hooks.
_SEPARATE = ("_DDPSinkBackward", "BackwardHookFunctionBackward")


class Tape:
    """Nodes of the graph, each with the tasks that reach it, parents before children.

    reached: node -> bit mask of the tasks (by position) whose loss depends on it. leaves: leaf tensor -> its node.
    compiled: the tasks whose loss comes through a torch.compile'd region.
    """

    def __init__(self, losses: Mapping[int, Tensor]) -> None:
        self.reached: dict[Node, int] = {}
        self.leaves: dict[Tensor, Node] = {}
        self.compiled: set[int] = set()
        self._roots = {task: get_gradient_edge(loss) for task, loss in losses.items()}
        order = _parents_first([edge.node for edge in self._roots.values()])
        masks: defaultdict[Node, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))  # by output
        for task, edge in self._roots.items():
            masks[edge.node][edge.output_nr] |= 1 << task
        for node in order:
            by_output = masks.pop(node)
            mask = self.reached[node] = functools.reduce(operator.or_, by_output.values())
            separate = node.name() in _SEPARATE
            for position, (child, nr) in enumerate(node.next_functions):
                if child is not None:
                    masks[child][nr] |= by_output[position] if separate else mask
            variable = getattr(node, "variable", None)
            if isinstance(variable, Tensor):
                self.leaves[variable] = node
            elif node.name() == _COMPILED:
                self.compiled.update(task for task in losses if mask & (1 << task))
            elif node.name() == _REENTRANT_CHECKPOINT:
                raise ValueError(
                    "gradients of single tasks cannot pass a reentrant activation checkpoint; use "
                    "torch.utils.checkpoint.checkpoint(…, use_reentrant=False)"
                )

    def leaves_of(self, task: int) -> set[Tensor]:
        """The leaves that a task's loss reaches."""
        return {leaf for leaf, node in self.leaves.items() if self.reached[node] & (1 << task)}

    def leaves_around(self, edges: Collection[GradientEdge]) -> set[Tensor]:
        """The leaves that the losses reach without passing any of `edges`."""
        closed = {(edge.node, edge.output_nr) for edge in edges}
        seen: set[Node] = set()
        pending: list[tuple[Node, int]] = [(edge.node, edge.output_nr) for edge in self._roots.values()]
        while pending:
            node, nr = pending.pop()
            if node is not None and (node, nr) not in closed and node not in seen:
                seen.add(node)
                pending.extend(node.next_functions)
        return {leaf for leaf, node in self.leaves.items() if node in seen}

    def parents(self, nodes: Collection[Node]) -> dict[Node, list[tuple[Node, int]]]:
        """For each of `nodes`: who uses its output, and as which input."""
        found: dict[Node, list[tuple[Node, int]]] = {node: [] for node in nodes}
        for node in self.reached:
            for position, (child, _) in enumerate(node.next_functions):
                if child in found:
                    found[child].append((node, position))
        return found

    def cut(self, own: Collection[Tensor]) -> list[GradientEdge]:
        """The edges where the tasks' own parts of the graph end and the shared part begins.

        The shared part is what two tasks or more reach and has none of the parameters `own` below it, and any other
        leaf. A path from a loss enters it by one of these edges and stays; but one edge may lie below another, where
        tasks tap the trunk at two depths.
        """
        theirs = set(own)
        inside: set[Node] = set()
        for node in reversed(self.reached):
            variable = getattr(node, "variable", None)
            if isinstance(variable, Tensor):
                if variable not in theirs:  # shared, or nobody asks for its gradient
                    inside.add(node)
                continue
            mask = self.reached[node]
            children = [child for child, _ in node.next_functions if child is not None]
            if children and mask & (mask - 1) and all(child in inside for child in children):
                inside.add(node)
        edges: dict[tuple[Node, int], None] = {}
        for edge in self._roots.values():
            if edge.node in inside:
                edges[edge.node, edge.output_nr] = None
        for node in self.reached:
            if node not in inside:
                edges.update(((child, nr), None) for child, nr in node.next_functions if child in inside)
        return [GradientEdge(node, nr) for node, nr in edges]

    def uses_of(self, weights: Iterable[Tensor]) -> dict[Tensor, list[Node]]:
        """For each weight of a linear layer: the matrix products that use it. Others are left out.

        A weight qualifies if nothing but x @ weight.T uses it, with 2-dimensional x: what `nn.Linear` and `F.linear`
        record. Hooks on the weight, half precision and autocast's casts disqualify it.
        """
        able = [weight for weight in weights if weight.ndim == 2 and weight.dtype in (torch.float32, torch.float64)]
        leaves = {weight: node for weight in able if (node := self.leaves.get(weight))}
        users = self.parents(leaves.values())
        transposes = {
            weight: [parent for parent, _ in users[node]]
            for weight, node in leaves.items()
            if not weight._backward_hooks and all(parent.name() == "TBackward0" for parent, _ in users[node])
        }
        products = self.parents([node for nodes in transposes.values() for node in nodes])
        found = {}
        for weight, nodes in transposes.items():
            uses = [use for node in nodes for use in products[node]]
            if uses and all(_is_linear(node, position) for node, position in uses):
                found[weight] = [node for node, _ in uses]
        return found


def _parents_first(roots: Sequence[Node]) -> list[Node]:
    """All nodes below `roots`, every one after all that use it."""
    finished: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        pending = [(root, False)]
        while pending:
            node, done = pending.pop()
            if done:
                finished.append(node)
            elif node not in seen:
                seen.add(node)
                pending.append((node, True))
                pending.extend((child, False) for child, _ in node.next_functions if child not in seen and child)
    return finished[::-1]


# Where the saved input lies, by the name of a product's node and the position of the transposed weight in it.
_INPUT = {("AddmmBackward0", 2): "mat1", ("MmBackward0", 1): "self"}


def _is_linear(node: Node, position: int) -> bool:
    saved = _INPUT.get((node.name(), position))
    return saved == "self" or (saved == "mat1" and node._saved_alpha == 1 and node._saved_beta == 1)


def input_of(node: Node) -> Tensor | None:
    """The input x (n, fan_in) of a product x @ weight.T found by `Tape.uses_of`, detached.

    None where it is not kept as it is: sparse, or packed by saved-tensor hooks, which recompute it (activation
    checkpointing) or fetch it from elsewhere (offloading) each time that it is read. Raises RuntimeError, as a backward
    would, where it was modified in place.
    """
    saved = next(saved for (name, _), saved in _INPUT.items() if name == node.name())
    kept = getattr(node, f"_saved_{saved}").detach()
    try:
        # The one way to learn that there are hooks: only one pair of them is allowed.
        getattr(node, f"_raw_saved_{saved}").register_hooks(_identity, _identity)
    except RuntimeError:
        return None
    return kept if kept.layout == torch.strided else None


def rows_of(node: Node) -> int:
    """The number of rows of the product's input."""
    saved = next(saved for (name, _), saved in _INPUT.items() if name == node.name())
    return int(getattr(node, f"_saved_{saved}_sym_sizes")[0])


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def differentiate(
    outputs: Tensor | Sequence[GradientEdge],
    inputs: Sequence[Tensor | GradientEdge],
    seeds: Sequence[Tensor] | None = None,
    retain: bool = False,
) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad`, None for what is not reached, that takes no inputs too."""
    if not inputs:
        return ()
    return torch.autograd.grad(outputs, inputs, seeds, retain_graph=retain, allow_unused=True)  # type: ignore[arg-type]
