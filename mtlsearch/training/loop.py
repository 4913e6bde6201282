"""The training loop: one plain function, the same in a command, in a trial of a search and in a test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mtlsearch.errors import InputError
from mtlsearch.gradients import MultiTaskOptimizer, get_strategy
from mtlsearch.training import checkpoint
from mtlsearch.training.config import RunConfig
from mtlsearch.training.conflicts import Conflicts
from mtlsearch.training.problem import Problem, Progress, Resizes
from mtlsearch.training.schedules import total_steps
from mtlsearch.training.seeding import generator, random_state, seeded, set_random_state

Row = dict[str, float]
"""the metrics of one epoch: epoch, train/…, val/…, best/val/…, conflict/…, time/…"""
Report = Callable[[Row], bool | None]
"""called after each epoch with its row; returning True stops the run there"""


class TrainingDiverged(RuntimeError):
    """A loss or the objective became NaN or infinite. The message names which, and where."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. `best` is the whole row of the best epoch by the first objective."""

    history: list[Row]
    best: Row
    """of the last stage that was reached"""
    stopped_early: bool
    model: torch.nn.Module = field(repr=False)


@dataclass
class _State:
    """Everything that a resumed run needs, in one place."""

    model: torch.nn.Module
    optimizer: MultiTaskOptimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    history: list[Row]
    best: Row | None = None

    def save(self, path: Path, config: RunConfig) -> None:
        state = {
            "config": config.tree(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "best": self.best,
            "random": random_state(),
            "threads": torch.get_num_threads(),
        }
        checkpoint.save_last(path, state)

    def restore(self, path: Path, config: RunConfig) -> None:
        state = checkpoint.load_last(path)
        if state["config"] != config.tree():
            raise InputError(f"{path} belongs to another run config; give this run a folder of its own")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history, self.best = state["history"], state["best"]
        set_random_state(state["random"])
        torch.set_num_threads(state["threads"])  # sums depend on it: the run goes on as it began


def train(
    problem: Problem,
    config: RunConfig,
    *,
    report: Report | None = None,
    directory: Path | None = None,
    objective: tuple[str, str] | None = None,
    stop_after: int | None = None,
    on_step: Progress | None = None,
    must_be_finite: Sequence[str] = (),
    reported: int | None = None,
) -> TrainingResult:
    """Trains `config` on a prepared `problem`.

    Args:
        report: called after each epoch; returning True ends the run.
        directory: where last.pt and best.safetensors go; a last.pt found there is continued from, exactly as if
            the run had never stopped. None writes nothing.
        objective: (metric, "min" or "max") that decides the best epoch, for example ("val/nme", "min"); the
            problem's first objective by default.
        stop_after: end after this many epochs of the config's own schedule, as early stopping does.
        on_step: called after each micro-batch with (micro-batches done, of the whole run).
        must_be_finite: metrics besides the objective that end the run when they are NaN or infinite.
        reported: of a run that is continued, how many epochs `report` has seen; those that last.pt holds beyond are
            reported first, and those that it lacks are not reported again. None: all that last.pt holds.

    Raises:
        TrainingDiverged: a loss or the objective became NaN or infinite.
    """
    device = choose_device(config.training.device)
    problem.to(device)
    name, mode = objective or first_objective(problem)
    epochs = config.training.epochs
    counts = _micro_batch_counts(problem, config)
    with seeded(config.seed), _resized(problem) as resize:
        state = _initial_state(problem, config, device, total_steps(counts, config.training.accumulate))
        last = directory / checkpoint.LAST if directory else None
        if last is not None and last.exists():
            state.restore(last, config)
        seen = len(state.history) if reported is None else reported
        stop = False
        for row in state.history[seen:]:
            stop = (report is not None and bool(report(row))) or stop
        while len(state.history) < min(epochs, stop_after or epochs) and not stop:
            epoch = len(state.history) + 1
            stage = config.training.stage_of(epoch)
            resize(stage.image_size)
            if epoch > 1 and stage != config.training.stage_of(epoch - 1):
                state.best = None  # figures of smaller images are not comparable
            watch = _from(sum(counts[: epoch - 1]), sum(counts), on_step or _unseen)
            row = _train_epoch(problem, config, state, epoch, watch)
            row |= _evaluate(problem, state.model, (name, *must_be_finite), row)
            if state.best is None or _better(row[name], state.best[name], mode):
                state.best = dict(row)
                if directory is not None:
                    checkpoint.save_weights(directory / checkpoint.BEST, state.model, config.tree(), state.best)
            row |= {f"best/{key}": value for key, value in state.best.items() if key.startswith("val/")}
            row["best/epoch"] = state.best["epoch"]
            state.history.append(row)
            if last is not None:
                state.save(last, config)
            if report is not None and len(state.history) > seen:
                stop = bool(report(row))
    assert state.best is not None
    return TrainingResult(state.history, state.best, len(state.history) < epochs, state.model)


def first_objective(problem: Problem | type[Problem]) -> tuple[str, str]:
    """The metric that decides the best epoch, with its direction: ("val/nme", "min")."""
    name, mode = next(iter(problem.objectives.items()))
    return f"val/{name}", mode


def choose_device(name: str) -> torch.device:
    """Raises InputError where a GPU is asked for and there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"training.device: {name!r} was asked for and torch sees no GPU here; use 'auto' or 'cpu'")
    return torch.device(name)


def _initial_state(problem: Problem, config: RunConfig, device: torch.device, steps: int) -> _State:
    model = problem.build_model().to(device)
    optimizer = MultiTaskOptimizer(
        config.optimizer.build(model.parameters()),
        strategy=get_strategy(config.strategy.name, **config.strategy.hyperparameters),
        tasks=problem.tasks,
        shared=problem.shared_parameters(model),
        seed=config.seed,
        engine=config.training.engine,
        update_every=config.training.update_every,
        process_group=False,
    )
    return _State(model, optimizer, config.schedule.build(optimizer, steps), history=[])


def _unseen(done: int, total: int) -> None:
    """For runs that nobody watches step by step."""


def _from(before: int, total: int, on_step: Progress) -> Callable[[int], None]:
    """Takes the micro-batches done in an epoch, of a run that has `before` behind it."""
    return lambda done: on_step(before + done, total)


@contextmanager
def _resized(problem: Problem) -> Iterator[Callable[[int | None], None]]:
    """Sets the size of the problem's images, which is its own again after the scope; for the others does nothing."""
    if not isinstance(problem, Resizes):
        yield lambda image_size: None
        return
    try:
        yield problem.resize
    finally:
        problem.resize(None)


def _samples(problem: Problem, config: RunConfig, epoch: int) -> int:
    """How many training samples an epoch sees."""
    return max(1, round(config.training.stage_of(epoch).data * problem.size("train")))


def _micro_batch_counts(problem: Problem, config: RunConfig) -> list[int]:
    """Of each epoch of the run."""
    samples = [_samples(problem, config, epoch) for epoch in range(1, config.training.epochs + 1)]
    return [len(_batches(torch.arange(count), config.training.batch_size)) for count in samples]


def _train_epoch(problem: Problem, config: RunConfig, state: _State, epoch: int, on_step: Callable[[int], None]) -> Row:
    started = time.perf_counter()
    settings = config.training
    device = next(state.model.parameters()).device
    order = torch.randperm(problem.size("train"), generator=generator(config.seed, "order", epoch))
    order = order[: _samples(problem, config, epoch)]
    draws = generator(config.seed, "augmentation", epoch)
    totals = dict.fromkeys(problem.tasks, torch.zeros((), device=device))
    norms: list[torch.Tensor] = []
    conflicts = Conflicts()
    lr = state.optimizer.param_groups[0]["lr"]
    state.model.train()
    done = 0
    for group in _groups(_batches(order, settings.batch_size), settings.accumulate):
        state.optimizer.zero_grad()
        for position, indices in enumerate(group, start=1):
            batch = problem.batch(indices, draws)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                losses = problem.losses(state.model, batch)
            for task, loss in losses.items():
                totals[task] = totals[task] + loss.detach() * (len(indices) / len(order))
            # a micro-batch counts by its share of samples, so that the step is that of the joint batch
            share = len(indices) / sum(len(part) for part in group)
            _backward(state, {task: loss * share for task, loss in losses.items()}, position == len(group), epoch)
            done += 1
            on_step(done)
        conflicts.see(state.optimizer.diagnostics)
        norms.append(_clip(state.model, settings.clip_norm))
        state.optimizer.step()
        lr = state.optimizer.param_groups[0]["lr"]
        state.schedule.step()
    seconds = time.perf_counter() - started
    row: Row = {"epoch": float(epoch)}
    row |= {f"train/{task}": total.item() for task, total in totals.items()}
    row["train/grad_norm"] = torch.stack(norms).mean().item()
    row["train/lr"] = float(lr)
    row |= conflicts.row()
    row["time/train_s"] = seconds
    row["time/samples_per_s"] = len(order) / seconds
    return row


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """`order` in portions of `size`. A single left-over sample joins the last: batch norm has no variance of one."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _groups(items: list[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _backward(state: _State, losses: dict[str, torch.Tensor], combine: bool, epoch: int) -> None:
    for task, loss in losses.items():
        if not torch.isfinite(loss):
            lr = state.optimizer.param_groups[0]["lr"]
            raise TrainingDiverged(
                f"loss {task!r} became {loss.item()} in epoch {epoch} at learning rate {lr:.3g}; "
                "lower optimizer.lr, add training.clip_norm, or lengthen the warm-up"
            )
    state.optimizer.backward(losses, combine=combine)


def _clip(model: torch.nn.Module, limit: float | None) -> torch.Tensor:
    """The norm of the whole gradient, clipped to `limit` if there is one."""
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)


def _evaluate(problem: Problem, model: torch.nn.Module, objectives: Sequence[str], row: Row) -> Row:
    started = time.perf_counter()
    model.eval()
    with torch.inference_mode():
        metrics = {f"val/{name}": float(value) for name, value in problem.evaluate(model, "val").items()}
    for name in objectives:
        if name not in metrics:
            raise InputError(f"objective {name!r} is not among the metrics: {', '.join(sorted(metrics))}")
        if not math.isfinite(metrics[name]):
            raise TrainingDiverged(f"{name} became {metrics[name]} in epoch {int(row['epoch'])}")
    return metrics | {"time/val_s": time.perf_counter() - started}


def _better(value: float, than: float, mode: str) -> bool:
    return value < than if mode == "min" else value > than
