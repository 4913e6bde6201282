"""One backward of the weighted losses, for strategies that weigh losses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diagnostics import Diagnostics
from ..graph import ParameterSets
from ..ranks import Ranks
from ..strategy import LossStrategy, Step
from ..tape import differentiate
from ..task_rows import hold, write
from .base import Call, Engine


class LossEngine(Engine):
    """One backward of the weighted losses a call. Linear in the losses, so it fills `.grad` at once.

    Unless the strategy must see all losses to weigh any of them, and they come in several calls: then one gradient a
    task waits for the weights.
    """

    def __init__(self, strategy: LossStrategy, sets: ParameterSets, ranks: Ranks | None) -> None:
        self._strategy, self.sets, self._ranks = strategy, sets, ranks
        # Task -> its weight in the last call that it took part in.
        self._weights: dict[int, Tensor] = {}
        # Task -> what waits for its weight: the loss so far and the gradient of each parameter.
        self._losses: dict[int, Tensor] = {}
        self._held: dict[int, dict[Tensor, Tensor]] = {}
        self._parameters: list[Tensor] = []
        self._scaled = False

    @property
    def pending(self) -> tuple[int, ...]:
        return tuple(sorted(self._losses or self._weights))

    @property
    def holds_gradients(self) -> bool:
        return bool(self._losses)

    def clear(self) -> None:
        self._weights.clear()
        self._losses.clear()
        self._held.clear()

    def backward(self, call: Call, step: Step) -> None:
        if not call.values:
            return
        self._scaled = call.scaler is not None
        self._parameters = call.wanted
        if self._strategy.needs_all_losses and (self._losses or not call.last):
            self._hold(call)
            return
        tasks = tuple(call.values)
        values = torch.stack([value.reshape(()) for value in call.values.values()])
        weights = self._weigh(values, step.of(tasks, values))
        terms = [
            weight.to(call.losses[task].device) * call.losses[task].reshape(())
            for task, weight in zip(tasks, weights)
            if task in call.losses
        ]
        penalty = self._strategy.penalty([task for task in tasks if task not in self._weights])
        if penalty is not None:
            terms.append(penalty if self._ranks is None else self._ranks.once(penalty))
        if terms:
            total = sum((term.to(terms[0].device) for term in terms[1:]), start=terms[0])
            self._differentiate(total if call.scaler is None else call.scaler.scale(total))
        else:
            self._differentiate(None)
        self._weights.update(zip(tasks, weights.detach()))

    def combine(self, step: Step) -> Diagnostics:
        if self._losses:
            tasks = self.pending
            losses = torch.stack([self._losses[task] for task in tasks])
            weights = self._weigh(losses, step.of(tasks, losses)).detach()
            total: dict[Tensor, Tensor] = {}
            for task, weight in zip(tasks, weights):
                held = self._held.get(task, {})
                hold(total, {p: g * weight.to(g.device, g.dtype) for p, g in held.items()})
            write(total if self._ranks is None else self._ranks.sum_gradients(total, self._parameters))
            self._weights = dict(zip(tasks, weights))
        names = tuple(step.names[task] for task in self.pending)
        return Diagnostics(names, torch.stack([self._weights[task] for task in self.pending]))

    def _differentiate(self, total: Tensor | None) -> None:
        """Plain backward; over several ranks, the sum of theirs, past the hooks of a DDP wrapper."""
        if self._ranks is None:
            assert total is not None
            total.backward()
            return
        parameters = [*self._parameters, *self._strategy.parameters()]
        found: dict[Tensor, Tensor] = {}
        if total is not None:
            gradients = self._ranks.differentiate(total, parameters)
            found = {p: g for p, g in zip(parameters, gradients) if g is not None}
        write(self._ranks.sum_gradients(found, parameters))

    def _weigh(self, losses: Tensor, step: Step) -> Tensor:
        if self._strategy.needs_all_losses and len(losses) == 1:
            return torch.ones_like(losses)  # one task alone is plain training
        if self._scaled and self._strategy.stateful and not losses.isfinite().all():
            return torch.full_like(losses, torch.nan)  # the scaler's sign to skip the step
        return self._strategy.weigh(losses, step)

    def _hold(self, call: Call) -> None:
        for task, value in call.values.items():
            self._losses[task] = self._losses[task] + value if task in self._losses else value
        for left, (task, loss) in zip(reversed(range(len(call.losses))), call.scaled.items()):
            find = differentiate if self._ranks is None else self._ranks.differentiate
            gradients = find(loss, self._parameters, retain=left > 0)
            found = {p: g for p, g in zip(self._parameters, gradients) if g is not None}
            hold(self._held.setdefault(task, {}), found)
