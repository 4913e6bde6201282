"""Engines that make one trunk backward: the tasks' gradients stop where their graphs part, and go on combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..diagnostics import Diagnostics
from ..gramian import gramian, sum_on_first_device
from ..graph import ParameterSets, check_reach
from ..ranks import Ranks
from ..strategy import GramianStrategy, Step
from ..tape import Tape, differentiate
from ..task_rows import hold, write
from .base import Call, Engine, weigh_finite


class Cut:
    """The graph of one call, cut into the tasks' own parts and the shared part below.

    On a rank without any loss there is no graph: it takes part in the sums over ranks.
    """

    def __init__(self, call: Call, step: Step, sets: ParameterSets, ranks: Ranks | None) -> None:
        self._call, self._ranks = call, ranks
        self._held: dict[Tensor, Tensor] = {}
        self.edges: list[GradientEdge] = []
        self.shared: list[Tensor] = []
        self._own: list[Tensor] = []
        if not call.losses:
            return
        tape = Tape(call.losses)
        for task in call.losses:
            check_reach(step.names[task], tape.leaves_of(task), call.wanted)
        if call.features:
            self._cut_at_features(tape)
        else:
            self._cut_where_tasks_part(tape, sets)
        if (not self.shared or not self.edges) and len(call.losses) > 1:
            raise ValueError(
                "the tasks share no parameter of this optimizer: nothing to combine. Train them with a plain optimizer"
            )
        below_cut = set(self.shared)
        self._own = [parameter for parameter in call.wanted if parameter not in below_cut]

    def _cut_at_features(self, tape: Tape) -> None:
        call = self._call
        if not all(isinstance(feature, Tensor) and feature.requires_grad for feature in call.features):
            raise ValueError("features must be tensors that the losses were computed from, with their graph")
        below = Tape(dict(enumerate(call.features))).leaves.keys()
        self.shared = [parameter for parameter in call.wanted if parameter in below]
        edges = {(edge.node, edge.output_nr): edge for edge in map(get_gradient_edge, call.features)}
        self.edges = list(edges.values())
        if around := tape.leaves_around(self.edges) & set(self.shared):
            raise ValueError(
                f"{len(around)} parameters below the given features are reached by the losses around them too; "
                "give all tensors that lead from the shared part to the tasks: features=[…]"
            )

    def _cut_where_tasks_part(self, tape: Tape, sets: ParameterSets) -> None:
        call = self._call
        if tape.compiled and not sets.given:
            raise ValueError(
                "a compiled module is one node of the graph, which hides what its losses share; name it: "
                "shared=model.backbone.parameters()"
            )
        sets.foresee(tape, call.losses, call.wanted)
        reached = tape.leaves.keys()
        self.shared = [parameter for parameter in sets.shared(call.wanted) if parameter in reached]
        known = set(self.shared)
        self.edges = tape.cut([parameter for parameter in call.wanted if parameter not in known])

    def heads(self) -> dict[int, list[Tensor | None]]:
        """A pass through each task's own part: its gradient at every edge. Its own gradients wait for `trunk`.

        What arrives at an edge goes no further, or an edge below would have it as well.
        """
        seeds: dict[int, list[Tensor | None]] = {}
        stops = [edge.node.register_prehook(partial(_without, edge.output_nr)) for edge in self.edges]
        # A node that autograd goes on from gives its gradient as it comes, before hooks on the tensor, which will run
        # in `trunk`.
        children = (child for edge in self.edges for child in edge.node.next_functions[:1])
        further = [GradientEdge(node, nr) for node, nr in children if node is not None]
        try:
            for task, loss in self._call.scaled.items():
                found = differentiate(loss, [*self.edges, *self._own, *further], retain=True)
                seeds[task] = list(found[: len(self.edges)])
                hold(self._held, {p: g for p, g in zip(self._own, found[len(self.edges) :]) if g is not None})
        finally:
            for stop in stops:
                stop.remove()
        return seeds

    def trunk(self, seeds: Mapping[int, Sequence[Tensor | None]], weights: Mapping[int, Tensor]) -> None:
        """One pass through the shared part, seeded with the weighted sum of the tasks' gradients; fills `.grad`."""
        edges: list[GradientEdge] = []
        mixed: list[Tensor] = []
        shared = set(self.shared)
        for position, edge in enumerate(self.edges):
            given = [(weights[task], seed[position]) for task, seed in seeds.items()]
            terms = [seed * weight.to(seed.device, seed.dtype) for weight, seed in given if seed is not None]
            if not terms:
                continue
            total = sum(terms[1:], start=terms[0])
            parameter = getattr(edge.node, "variable", None)
            if parameter is None:
                edges.append(edge)
                mixed.append(total)
            elif parameter in shared:
                hold(self._held, {parameter: total})
        if self._ranks is None:
            if edges:
                torch.autograd.backward(edges, mixed, inputs=self.shared)
            write(self._held)
            return
        found = differentiate(edges, self.shared, mixed) if edges else [None] * len(self.shared)
        hold(self._held, {p: g for p, g in zip(self.shared, found) if g is not None})
        write(self._ranks.sum_gradients(self._held, self._call.wanted))


def _without(position: int, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if i == position else gradient for i, gradient in enumerate(gradients))


class FeatureEngine(Engine):
    """Combines the tasks' gradients with respect to shared features, and sends the result through the trunk once.

    The features are those given to `backward`, or else the tensors where the tasks' graphs part. Another algorithm than
    combining gradients of parameters, and cheaper: Sener and Koltun 2018 (MGDA-UB).
    """

    def __init__(self, strategy: GramianStrategy, sets: ParameterSets, ranks: Ranks | None) -> None:
        self._strategy, self.sets, self._ranks = strategy, sets, ranks
        self.clear()

    def clear(self) -> None:
        self._call: Call | None = None
        self._cut: Cut | None = None

    @property
    def pending(self) -> tuple[int, ...]:
        return () if self._call is None else tuple(self._call.values)

    @property
    def holds_gradients(self) -> bool:
        return self._call is not None

    def backward(self, call: Call, step: Step) -> None:
        if not call.values:
            return
        if self._call is not None:
            raise ValueError(
                "the feature engine combines the gradients of one call, because every call has features of its own: "
                "give all losses to one backward(losses)"
            )
        if self._ranks is not None and not call.features:
            raise ValueError(
                "over several processes, which may not have the same tasks, name the tensors that the tasks share: "
                "backward(losses, features=features)"
            )
        self._call, self._cut = call, Cut(call, step, self.sets, self._ranks)

    def combine(self, step: Step) -> Diagnostics:
        call, cut = self._call, self._cut
        assert call is not None and cut is not None
        tasks = tuple(call.values)
        names = tuple(step.names[task] for task in tasks)
        seeds = cut.heads()
        total = _gramian(tasks, seeds)
        if self._ranks is not None:  # other ranks have other samples, whose features are further columns
            total = self._ranks.sum_small(total)
        if call.scaler is not None:
            scale = call.scaler.scale(torch.ones((), device=total.device, dtype=torch.float64))
            total = total / scale.square()
        losses = torch.stack([call.values[task].to(total.device) for task in tasks])
        if len(tasks) == 1:
            weights = torch.ones(1, dtype=torch.float64)
        else:
            single = any(seed.dtype != torch.float64 for given in seeds.values() for seed in given if seed is not None)
            dtype = torch.float32 if single else torch.float64
            weights = weigh_finite(self._strategy, total, step.of(tasks, losses, dtype), call.scaler is not None)
        cut.trunk(seeds, dict(zip(tasks, weights)))
        return Diagnostics(names, weights, total)


def _gramian(tasks: Sequence[int], seeds: Mapping[int, Sequence[Tensor | None]]) -> Tensor:
    """(K, K) float64 of the gradients at the edges, summed over edges; a task not in `seeds` has zeros."""
    parts = []
    for given in zip(*seeds.values()):
        like = next((seed for seed in given if seed is not None), None)
        if like is not None:
            at = dict(zip(seeds, given))
            rows = [torch.zeros_like(like) if (seed := at.get(task)) is None else seed for task in tasks]
            wide = torch.promote_types(like.dtype, torch.float32)
            parts.append(gramian(torch.stack([row.to(wide).flatten() for row in rows])))
    return sum_on_first_device(parts) if parts else torch.zeros(len(tasks), len(tasks), dtype=torch.float64)


class RepeatingEngine(Engine):
    """Lets an engine find the weights every k-th step, and does one trunk backward with them in between.

    A task that was absent when the weights were found has weight 1.
    """

    def __init__(self, inner: Engine, every: int, ranks: Ranks | None) -> None:
        self._inner, self._every, self._ranks = inner, every, ranks
        self._weights: dict[int, Tensor] = {}
        self._given: set[int] = set()

    @property
    def sets(self) -> ParameterSets:  # type: ignore[override]
        return self._inner.sets

    @property
    def pending(self) -> tuple[int, ...]:
        return self._inner.pending or tuple(sorted(self._given))

    @property
    def holds_gradients(self) -> bool:
        return self._inner.holds_gradients

    def clear(self) -> None:
        self._inner.clear()
        self._given.clear()

    def backward(self, call: Call, step: Step) -> None:
        if self._inner.pending or not self._weights or step.index % self._every == 0:
            self._inner.backward(call, step)
            return
        cut = Cut(call, step, self.sets, self._ranks)
        seeds = cut.heads()
        one = torch.ones((), dtype=torch.float64)
        cut.trunk(seeds, {task: self._weights.get(task, one) for task in seeds})
        self._given.update(call.values)

    def combine(self, step: Step) -> Diagnostics:
        if self._inner.pending:
            tasks = self._inner.pending
            found = self._inner.combine(step)
            assert found.weights is not None
            # A step that overflowed has no weights; those before it stay, if there were any.
            before = [self._weights.get(task, torch.ones_like(w)) for task, w in zip(tasks, found.weights)]
            fine = found.weights.isfinite().all()
            self._weights = {task: torch.where(fine, w, b) for task, w, b in zip(tasks, found.weights, before)}
            return found
        tasks = self.pending
        one = torch.ones((), dtype=torch.float64)
        weights = torch.stack([self._weights.get(task, one) for task in tasks])
        return Diagnostics(tuple(step.names[task] for task in tasks), weights)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": {task: weight.clone() for task, weight in self._weights.items()}, **self._inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weights = {int(task): weight.clone() for task, weight in state.get("weights", {}).items()}
