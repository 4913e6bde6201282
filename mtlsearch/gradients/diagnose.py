"""Is gradient surgery worth it here? A look at a model's task gradients before paying for any of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .engines.rows import is_ghost
from .gramian import cosines, gramian, norms
from .graph import ParameterSets
from .losses import Losses, TaskNames
from .optimizer import MultiTaskOptimizer
from .tape import Tape, differentiate, rows_of

# Below this share of steps with a conflict, surgery has hardly anything to cut.
FEW_CONFLICTS = 0.1
# Above this ratio of mean gradient lengths, the longest task decides the direction of the sum.
UNEVEN_LENGTHS = 3.0

_ENGINES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain sum, or a loss strategy", {"strategy": "weighted_sum"}),
    ('engine="auto"', {}),
    ('engine="rows"', {"engine": "rows"}),
    ("update_every=5", {"update_every": 5}),
    ('engine="feature"', {"engine": "feature"}),
)


@dataclass(frozen=True)
class Layer:
    """The task gradients of one module's shared parameters.

    parameters: how many numbers. conflict_share: of the steps, those with two tasks at more than 90 degrees. cosines:
    (T, T), mean over steps.
    """

    name: str
    parameters: int
    conflict_share: float
    cosines: Tensor


@dataclass(frozen=True)
class EngineCost:
    """What a step by one engine costs on this model: seconds (measured), and bytes beside `.grad` (counted)."""

    name: str
    seconds: float
    times_plain: float
    extra_bytes: int


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `print` it, or read the fields.

    tasks: their names. steps: how many batches. conflict_share: of the steps, those in which the gradients of two tasks
    have a negative inner product over all shared parameters; pair_conflicts (T, T): the same by pair. cosines (T, T)
    and lengths (T,): means over steps. imbalance: the longest mean gradient over the shortest. layers: by module.
    engines: what each would cost. verdict: what to try, in words.
    """

    tasks: tuple[str, ...]
    steps: int
    shared_parameters: int
    conflict_share: float
    pair_conflicts: Tensor
    cosines: Tensor
    lengths: Tensor
    imbalance: float
    layers: tuple[Layer, ...]
    engines: tuple[EngineCost, ...]
    verdict: str

    def __str__(self) -> str:
        lines = [
            f"{len(self.tasks)} tasks, {self.steps} steps, {self.shared_parameters:,} shared parameters",
            f"steps with a conflict: {self.conflict_share:.0%}",
            f"{'pair':32}{'conflicts':>10}{'mean cosine':>13}",
        ]
        for i, j in itertools.combinations(range(len(self.tasks)), 2):
            pair = f"{self.tasks[i]}, {self.tasks[j]}"
            lines.append(f"{pair:32}{self.pair_conflicts[i, j]:>10.0%}{self.cosines[i, j]:>13.3f}")
        lengths = ", ".join(f"{task} {length:.3g}" for task, length in zip(self.tasks, self.lengths.tolist()))
        lines += [f"mean gradient lengths: {lengths} ({self.imbalance:.1f} to 1)", ""]
        lines.append(f"{'layers with most conflicts':40}{'parameters':>12}{'conflicts':>10}")
        for layer in sorted(self.layers, key=lambda layer: -layer.conflict_share)[:8]:
            lines.append(f"{layer.name:40}{layer.parameters:>12,}{layer.conflict_share:>10.0%}")
        lines += ["", f"{'a step by':32}{'ms':>10}{'× plain':>10}{'extra MB':>10}"]
        for engine in self.engines:
            extra = engine.extra_bytes / 1e6
            lines.append(f"{engine.name:32}{1e3 * engine.seconds:>10.1f}{engine.times_plain:>10.2f}{extra:>10.1f}")
        return "\n".join([*lines, "", self.verdict])


def diagnose(
    model: nn.Module,
    losses_fn: Callable[[nn.Module, Any], Losses],
    loader: Iterable[Any],
    steps: int = 50,
    shared: Iterable[Tensor] | nn.Module | None = None,
) -> Diagnosis:
    """Measure how the tasks' gradients relate on up to `steps` batches, and what combining them would cost.

    losses_fn: (model, batch) -> one scalar loss a task, in a sequence or a mapping name -> loss. loader: batches.
    shared: as for MultiTaskOptimizer; by default the parameters that two losses or more reach.

    The model stays as it is: parameters, `.grad`, buffers and the CPU's random generator are as before; its hooks run.
    Look at a model in training as well as at a new one: conflicts come and go. Raises ValueError for fewer than two
    tasks, a batch without a loss for one of them, nothing shared or an empty loader.
    """
    batches = list(itertools.islice(loader, steps))
    if not batches:
        raise ValueError("the loader gave no batch")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    given = list(shared.parameters() if isinstance(shared, nn.Module) else shared) if shared is not None else None
    tasks = TaskNames(None)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = {name: p.grad for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    generator = torch.get_rng_state()
    try:
        seen = []
        for batch in batches:
            losses = tasks.resolve(losses_fn(model, batch))
            seen.append(_gramians(losses, len(tasks.names), parameters, given))
        engines = _engine_costs(model, losses_fn, batches, given)
    finally:
        torch.set_rng_state(generator)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers:  # another was made by a forward
                    buffer.copy_(buffers[name])
        for name, parameter in parameters.items():
            parameter.grad = before[name]
    return _conclude(tuple(tasks.names), parameters, seen, engines)


def _gramians(
    losses: dict[int, Tensor], tasks: int, parameters: Mapping[str, Tensor], given: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    """The Gramian (T, T) of every layer's shared parameters."""
    if len(losses) < max(2, tasks):
        raise ValueError(
            f"there must be two tasks or more, each with a loss in every batch, but one has {len(losses)}; leave out "
            "batches in which a task has none"
        )
    wanted = list(parameters.values())
    left = reversed(range(len(losses)))
    rows = [differentiate(loss, wanted, retain=n > 0) for n, loss in zip(left, losses.values())]
    chosen = None if given is None else set(given)
    layers: dict[str, list[Tensor]] = {}
    for (name, parameter), gradients in zip(parameters.items(), zip(*rows)):
        reached = [gradient for gradient in gradients if gradient is not None]
        if (len(reached) > 1) if chosen is None else (parameter in chosen and bool(reached)):
            full = [torch.zeros_like(reached[0]) if g is None else g for g in gradients]
            layers.setdefault(name.rpartition(".")[0] or name, []).append(torch.stack([g.flatten() for g in full]))
    if not layers:
        raise ValueError("the losses share no parameter of this model: there is nothing to combine")
    return {name: gramian(torch.cat(pieces, dim=1).float()) for name, pieces in layers.items()}


def _engine_costs(
    model: nn.Module,
    losses_fn: Callable[[nn.Module, Any], Losses],
    batches: Sequence[Any],
    given: Sequence[Tensor] | None,
    rounds: int = 5,
) -> list[EngineCost]:
    """Median seconds of a step by each engine, in turn, and the bytes that its gradients take beside `.grad`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = {}
    for name, options in _ENGINES:
        chosen = {"strategy": "pcgrad", "process_group": False, "shared": given, **options}
        optimizers[name] = MultiTaskOptimizer(torch.optim.SGD(trained, lr=0.0), **chosen)
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    device = trained[0].device
    for index in range(rounds + 1):
        batch = batches[index % len(batches)]
        for name, optimizer in optimizers.items():
            turns = 5 if "update_every" in name else 1
            start = time.perf_counter()
            for _ in range(turns):
                optimizer.backward(losses_fn(model, batch))
                optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / turns)
    extra = _extra_bytes(TaskNames(None).resolve(losses_fn(model, batches[0])), trained, given)
    plain = median(seconds[_ENGINES[0][0]])
    return [
        EngineCost(name, found := median(seconds[name]), found / plain, bytes_)
        for (name, _), bytes_ in zip(_ENGINES, extra)
    ]


def _extra_bytes(
    losses: dict[int, Tensor], parameters: Sequence[Tensor], given: Sequence[Tensor] | None
) -> tuple[int, int, int, int, int]:
    """Counted for `_ENGINES`: rows hold T gradients, ghosts the output gradients of layers, features their own."""
    tape, sets = Tape(losses), ParameterSets(given)
    sets.foresee(tape, losses, parameters)
    shared = sets.shared(parameters)
    rows = len(losses) * sum(p.numel() * p.element_size() for p in shared)
    auto = rows
    for weight, nodes in tape.uses_of(shared).items():
        if is_ghost("auto", weight, nodes, len(losses)):
            held = sum(rows_of(node) for node in nodes) * len(weight)
            auto += len(losses) * (held - weight.numel()) * weight.element_size()
    features = 0
    known = set(shared)
    for edge in tape.cut([parameter for parameter in parameters if parameter not in known]):
        found = [g for loss in losses.values() for g in differentiate(loss, [edge], retain=True) if g is not None]
        features += sum(g.numel() * g.element_size() for g in found)
    return 0, auto, rows, auto, features


def _conclude(
    tasks: tuple[str, ...], parameters: Mapping[str, Tensor], seen: list[dict[str, Tensor]], engines: list[EngineCost]
) -> Diagnosis:
    def over_steps(gramians: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Which pairs conflict, and the cosines: (steps, T, T)."""
        off = ~torch.eye(len(tasks), dtype=torch.bool, device=gramians[0].device)
        return torch.stack([(g < 0) & off for g in gramians]).cpu(), torch.stack([cosines(g) for g in gramians]).cpu()

    names = list(dict.fromkeys(name for step in seen for name in step))
    sizes = dict.fromkeys(names, 0)
    for name, parameter in parameters.items():
        layer = name.rpartition(".")[0] or name
        if layer in sizes:
            sizes[layer] += parameter.numel()
    layers = []
    for name in names:
        conflicts, angles = over_steps([step[name] for step in seen if name in step])
        layers.append(Layer(name, sizes[name], float(conflicts.any(2).any(1).double().mean()), angles.mean(0)))
    totals = [torch.stack(list(step.values())).sum(0) for step in seen]
    conflicts, angles = over_steps(totals)
    lengths = torch.stack([norms(total) for total in totals]).mean(0).cpu()
    shortest = float(lengths.min())
    found = Diagnosis(
        tasks=tasks,
        steps=len(seen),
        shared_parameters=sum(sizes.values()),
        conflict_share=float(conflicts.any(2).any(1).double().mean()),
        pair_conflicts=conflicts.double().mean(0),
        cosines=angles.mean(0),
        lengths=lengths,
        imbalance=float(lengths.max()) / shortest if shortest > 0 else float("inf"),
        layers=tuple(layers),
        engines=tuple(engines),
        verdict="",
    )
    return Diagnosis(**{**vars(found), "verdict": _verdict(found)})


def _verdict(found: Diagnosis) -> str:
    share = f"{found.conflict_share:.0%} of the steps have a conflict"
    uneven = found.imbalance > UNEVEN_LENGTHS
    longest = found.tasks[int(found.lengths.argmax())]
    lengths = f"the gradients of {longest!r} are the longest by {found.imbalance:.1f} to 1"
    if found.conflict_share < FEW_CONFLICTS:
        if uneven:
            return f"{share}: surgery is unlikely to help, but {lengths}: try uncertainty, imtl_l or static weights."
        return f"{share} and lengths are even: a plain weighted sum is all that it takes."
    pairs = list(itertools.combinations(range(len(found.tasks)), 2))
    i, j = max(pairs, key=lambda pair: float(found.pair_conflicts[pair]))
    cost = {engine.name: engine.times_plain for engine in found.engines}
    price = f"at {cost[_ENGINES[1][0]]:.1f} × a plain step ({cost[_ENGINES[3][0]]:.1f} × with update_every=5)"
    between = f"most often {found.tasks[i]!r} with {found.tasks[j]!r}"
    balance = f"; {lengths}: imtl_g, aligned_mtl or nash_mtl balance that as well" if uneven else ""
    return f"{share}, {between}: try pcgrad or cagrad, {price}{balance}. Compare with weighted_sum over several seeds."
