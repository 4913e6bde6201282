"""Task gradients in preallocated rows: filled task by task, read once for the Gramian and once to combine.

Two passes over T·P numbers; T·P numbers of memory, kept from step to step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .gramian import full_precision, gramian, sum_on_first_device, weighted_rows
from .graph import Gradient, ParameterSets
from .linear import Product
from .ranks import Ranks

# Rows start at multiples of this many elements for each parameter (64 bytes in float32), so that vectorised
# kernels take the views as well as they take a tensor of its own. The padding stays zero.
_ALIGN = 16


class TaskRows:
    """Accumulates per-task gradients and writes their combination to `.grad`.

    Gradients of shared parameters live in rows; those of the others are kept as autograd gave them and are added to
    `.grad` as plain backward would. Over several ranks each holds the rows of its part of the batch; what is read from
    them are sums over ranks, of which each rank holds a piece of the columns.
    """

    def __init__(self, sets: ParameterSets, ranks: Ranks | None = None) -> None:
        self._sets, self._ranks = sets, ranks
        self._blocks: list[_Block] = []
        self._key: tuple[object, ...] | None = None
        self._parameters: list[Tensor] = []
        self._capacity = 0
        # Task -> parameter -> gradient, for parameters that are not shared, or not yet known to be.
        self._held: dict[int, dict[Tensor, Tensor]] = {}
        self.shared: set[Tensor] = set()

    @property
    def tasks(self) -> tuple[int, ...]:
        """The tasks that have gradients waiting, in order."""
        return tuple(sorted(self._held))

    def clear(self) -> None:
        """Forget the gradients that wait. The rows' memory is kept for the next step."""
        self._held.clear()

    def add(self, task: int, parameters: Sequence[Tensor], gradients: Sequence[Gradient]) -> None:
        """Add one task's gradients (None: not reached) to what it already has."""
        again = task in self._held
        held = self._held.setdefault(task, {})
        fresh = {p: g for p, g in zip(parameters, gradients) if g is not None}
        if task < self._capacity:
            for block in self._blocks:
                block.put(task, [fresh.pop(p, None) for p in block.parameters], again)
        hold(held, {p: g.formed() if isinstance(g, Product) else g for p, g in fresh.items()})

    def hold(self, task: int, parameter: Tensor, gradient: Tensor) -> None:
        """Add one task's gradient of a parameter of its own."""
        hold(self._held[task], {parameter: gradient})

    def agree(self, parameters: Sequence[Tensor]) -> None:
        """Learn what the tasks reach on other ranks. Called on all of them before the rows are read."""
        if self._ranks is None:
            return
        self._sets.merge(parameters, self._ranks.agree(self._sets.state_dict(parameters)))
        self.arrange(parameters, self._sets.shared(parameters))
        reached = [p in held for held in map(self._reached, self.tasks) for p in parameters]
        union = iter(self._ranks.agree([int(bit) for bit in reached]))
        for task in self.tasks:
            now = {p for p in parameters if next(union)}
            for block in self._blocks:
                block.reached[task] = [p in now for p in block.parameters]

    def _reached(self, task: int) -> set[Tensor]:
        return set(self._held[task]).union(*(block.take(task) for block in self._blocks))

    def gramian(self) -> Tensor | None:
        """(K, K) float64 over the shared parameters, for the K tasks that have gradients; None if there are none."""
        if not self._blocks:
            return None
        if self._ranks is not None:
            pieces = [gramian(block.scatter(self.tasks, self._ranks)) for block in self._blocks]
            return self._ranks.sum_small(sum_on_first_device(pieces))
        total = sum_on_first_device([gramian(block.rows) for block in self._blocks])
        # Rows of tasks that take no part hold an earlier step's gradients: their entries are left out.
        tasks = list(self.tasks)
        return total if len(tasks) == len(total) else total[tasks][:, tasks]

    def jacobian(self) -> Tensor:
        """(K, P) copy of the rows as one matrix on one device, for strategies that need them. Summed over ranks."""
        for row in (block.rows[task] for block in self._blocks for task in self.tasks if self._ranks is not None):
            self._ranks.sum_(row)  # type: ignore[union-attr]
        pieces = [piece for block in self._blocks for piece in block.columns(self.tasks)]
        dtype = torch.float64 if any(piece.dtype == torch.float64 for piece in pieces) else torch.float32
        return torch.cat([piece.to(pieces[0].device, dtype) for piece in pieces], dim=1)

    @property
    def dtype(self) -> torch.dtype:
        """float32 if any rows are: the accuracy of what is computed from them."""
        single = any(block.rows.dtype == torch.float32 for block in self._blocks)
        return torch.float32 if single else torch.float64

    @torch.no_grad()
    def write_weighted(self, weights: Tensor) -> None:
        """Add Σ_k weights[k]·row_k to `.grad` of shared parameters."""
        for block in self._blocks:
            with full_precision(block.rows.device):
                if self._ranks is None:
                    combined = weighted_rows(block.rows, self.tasks, weights)
                else:
                    piece = weighted_rows(block.scatter(self.tasks, self._ranks), range(len(self.tasks)), weights)
                    combined = self._ranks.all_gather(piece)
            block.write(block.split(combined), self._reached_now(block))

    @torch.no_grad()
    def write_vector(self, gradient: Tensor) -> None:
        """Add a combined gradient (P,), laid out as `jacobian()`, to `.grad` of shared parameters."""
        pieces = iter(gradient.split([p.numel() for block in self._blocks for p in block.parameters]))
        for block in self._blocks:
            # Copies: a strategy may return a tensor of its own, and `.grad` must not alias it.
            views = [_shaped(next(pieces).to(p.device, block.rows.dtype, copy=True), p) for p in block.parameters]
            block.write(views, self._reached_now(block))

    def _reached_now(self, block: _Block) -> list[bool]:
        return [any(block.reached[task][i] for task in self.tasks) for i in range(len(block.parameters))]

    def write_specific(self, weights: Tensor | None = None) -> None:
        """Add the gradients of parameters that are not shared to their `.grad`, times the tasks' weights."""
        total: dict[Tensor, Tensor] = {}
        for position, task in enumerate(self.tasks):
            held = self._held[task]
            if weights is not None:
                held = {p: g * weights[position].to(g.device, g.dtype) for p, g in held.items()}
            if self._ranks is None:
                write(held)
            else:
                hold(total, held)
        if self._ranks is not None:
            write(self._ranks.sum_gradients(total, [p for p in self._parameters if p not in self.shared]))

    def arrange(self, parameters: Sequence[Tensor], shared: Sequence[Tensor], tasks: int = 0) -> None:
        """Make rows for the shared ones of `parameters`, and for so many tasks, and move gradients that wait."""
        capacity = max(self._capacity, tasks, *(task + 1 for task in self._held))
        self._parameters = list(parameters)
        key = (capacity, *map(id, shared))
        if key == self._key:
            return
        self._key = key
        old = self._blocks
        groups: defaultdict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for parameter in shared:
            if not parameter.is_floating_point():
                raise TypeError(
                    "shared parameters must be real floating-point numbers, but one has dtype "
                    f"{parameter.dtype}; leave it out with shared=…"
                )
            # Half-precision gradients are accumulated in float32.
            dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
            groups[parameter.device, dtype].append(parameter)
        pieces = 1 if self._ranks is None else self._ranks.size
        self._blocks = [_Block(members, capacity, *where, pieces) for where, members in groups.items()]
        self._capacity, self.shared = capacity, set(shared)
        for task in self.tasks:
            kept = {p: g for block in old for p, g in block.take(task).items()}
            hold(kept, self._held[task])
            for block in self._blocks:
                block.put(task, [kept.pop(p, None) for p in block.parameters], again=False)
            self._held[task] = kept


class _Block:
    """Rows (T, P) of the shared parameters of one device and row dtype, with a view of every gradient."""

    def __init__(
        self, parameters: list[Tensor], tasks: int, device: torch.device, dtype: torch.dtype, pieces: int
    ) -> None:
        self.parameters = parameters
        self._strides = [_grad_strides(parameter) for parameter in parameters]
        self._offsets = [0]
        for parameter in parameters:
            self._offsets.append(self._offsets[-1] + _rounded_up(parameter.numel(), _ALIGN))
        self.rows = torch.zeros(tasks, _rounded_up(self._offsets[-1], _ALIGN * pieces), device=device, dtype=dtype)
        self._scattered: Tensor | None = None
        self._views = [self.split(row) for row in self.rows]
        self.reached = [[False] * len(parameters) for _ in range(tasks)]

    def split(self, row: Tensor) -> list[Tensor]:
        """Views of a row in the parameters' shapes and in the memory layouts that their `.grad` has."""
        where = zip(self.parameters, self._offsets, self._strides)
        return [row[at : at + p.numel()].as_strided(p.shape, strides) for p, at, strides in where]

    def columns(self, tasks: tuple[int, ...]) -> list[Tensor]:
        """(K, numel) for each parameter, without the padding."""
        rows = self.rows if len(tasks) == len(self.rows) else self.rows[list(tasks)]
        return [rows[:, offset : offset + p.numel()] for p, offset in zip(self.parameters, self._offsets)]

    @torch.no_grad()
    def scatter(self, tasks: tuple[int, ...], ranks: Ranks) -> Tensor:
        """(K, P / ranks): this rank's piece of the rows summed over ranks. Communicates once for what `put` left."""
        if self._scattered is None:
            self._scattered = torch.stack([ranks.reduce_scatter(self.rows[task]) for task in tasks])
        return self._scattered

    @torch.no_grad()
    def put(self, task: int, gradients: list[Gradient], again: bool) -> None:
        """Write one task's gradients (None: not reached, a zero) into its row, or add them to it."""
        self._scattered = None
        views, reached = self._views[task], [gradient is not None for gradient in gradients]
        pairs = [(view, _strided(gradient)) for view, gradient in zip(views, gradients) if isinstance(gradient, Tensor)]
        for view, gradient in zip(views, gradients):
            if isinstance(gradient, Product):
                gradient.write(view, add=again)
        if again:
            _add([view for view, _ in pairs], [gradient for _, gradient in pairs])
            self.reached[task] = [before or now for before, now in zip(self.reached[task], reached)]
            return
        if pairs:
            torch._foreach_copy_([view for view, _ in pairs], [gradient for _, gradient in pairs])
        if missing := [view for view, gradient in zip(views, gradients) if gradient is None]:
            torch._foreach_zero_(missing)
        self.reached[task] = reached

    def take(self, task: int) -> dict[Tensor, Tensor]:
        """The gradients in a task's row, by parameter; empty for a task beyond this block's rows."""
        if task >= len(self.rows):
            return {}
        return {p: v for p, v, r in zip(self.parameters, self._views[task], self.reached[task]) if r}

    def write(self, views: list[Tensor], reached: list[bool]) -> None:
        """Add combined gradients, whose memory `.grad` may keep, to the parameters' `.grad`."""
        existing, added = [], []
        for parameter, view, now in zip(self.parameters, views, reached):
            if not now:
                continue  # unused in this step: `.grad` stays as it is, None included
            if parameter.grad is None:
                parameter.grad = view.to(parameter.dtype)
            else:
                existing.append(parameter.grad)
                added.append(view)
        _add(existing, added)


@torch.no_grad()
def hold(held: dict[Tensor, Tensor], gradients: Mapping[Tensor, Tensor]) -> None:
    """Add gradients to held ones. Out of place: what autograd returned may be shared with someone."""
    for parameter, gradient in gradients.items():
        held[parameter] = held[parameter] + gradient if parameter in held else gradient


@torch.no_grad()
def write(gradients: Mapping[Tensor, Tensor], own: bool = False) -> None:
    """Add gradients to the parameters' `.grad`, as a backward would; `own` if `.grad` may keep their memory."""
    existing, added = [], []
    for parameter, gradient in gradients.items():
        if parameter.grad is None:
            parameter.grad = gradient if own else _copied(parameter, gradient)
        else:
            existing.append(parameter.grad)
            added.append(gradient)
    _add(existing, added)


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _add(existing: list[Tensor], added: list[Tensor]) -> None:
    if any(tensor.is_sparse for tensor in (*existing, *added)):
        for tensor, more in zip(existing, added):
            tensor.add_(more)
    elif existing:
        torch._foreach_add_(existing, added)


def _copied(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A copy in the layout of a `.grad`.

    What autograd returned may be an expanded scalar, one tensor for two parameters, or one that a hook keeps.
    """
    if gradient.is_sparse:
        return gradient.clone()
    strides = _grad_strides(parameter)
    return torch.empty_strided(parameter.shape, strides, dtype=parameter.dtype, device=parameter.device).copy_(gradient)


def _shaped(flat: Tensor, parameter: Tensor) -> Tensor:
    """A view of a contiguous (numel,) in the parameter's shape and the layout of its `.grad`."""
    return flat.as_strided(parameter.shape, _grad_strides(parameter))


def _grad_strides(parameter: Tensor) -> tuple[int, ...]:
    """The strides that autograd gives a `.grad`: the parameter's if it is dense, else contiguous ones."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(parameter.stride(), parameter.shape) if n > 1):
        if stride != expected:
            return torch.empty(parameter.shape, device="meta").stride()
        expected *= size
    return parameter.stride()


def _strided(gradient: Tensor) -> Tensor:
    if gradient.layout != torch.strided:
        raise TypeError(
            "a shared parameter has a sparse gradient, which cannot be combined with others; use "
            "nn.Embedding(sparse=False), or leave the parameter out with shared=…"
        )
    return gradient
