"""The training loop: one plain function, the same in a command, in a trial of a search and in a test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mtlsearch.errors import InputError
from mtlsearch.gradients import MultiTaskOptimizer, get_strategy, strategy_info
from mtlsearch.gradients.losses import LossNotFinite
from mtlsearch.training import checkpoint
from mtlsearch.training.batching import batch_counts, epoch_order, grouped, load, split
from mtlsearch.training.config import RunConfig
from mtlsearch.training.conflicts import Conflicts
from mtlsearch.training.problem import Problem, Progress, Resizes
from mtlsearch.training.schedules import total_steps
from mtlsearch.training.seeding import derive_seed, generator, random_state, seeded, set_random_state
from mtlsearch.training.workers import Portion, Workers

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
    micro_batch: int | None = None,
) -> TrainingResult:
    """Trains `config` on a prepared `problem`.

    Where torch.distributed is set up, all its processes call this and train one run together: each takes its part of
    every batch, gradients are combined over the whole of it, the first validates and writes, and all report its rows.

    Args:
        report: called after each epoch; returning True ends the run.
        directory: where last.pt and best.safetensors go; a last.pt found there is continued from, exactly as if
            the run had never stopped. None writes nothing.
        objective: (metric, "min" or "max") that decides the best epoch, for example ("val/nme", "min"); the
            problem's first objective by default.
        stop_after: end after this many epochs of the config's own schedule, as early stopping does.
        on_step: called after each micro-batch with (micro-batches done, of the whole run).
        must_be_finite: metrics besides the objective that end the run when they are NaN or infinite.
        micro_batch: most samples that a process takes at one time. Gradients of the portions of a batch accumulate
            before they are combined, so that the step is that of the whole batch, batch norm apart.
        reported: of a run that is continued, how many epochs `report` has seen; those that last.pt holds beyond are
            reported first, and those that it lacks are not reported again. None: all that last.pt holds.

    Raises:
        TrainingDiverged: a loss or the objective became NaN or infinite.
    """
    device = choose_device(config.training.device)
    problem.to(device)
    name, mode = objective or first_objective(problem)
    epochs = config.training.epochs
    counts = batch_counts(problem, config)
    workers = Workers()
    _check_portions(config, micro_batch)
    with seeded(config.seed), _resized(problem) as resize:
        state = _initial_state(problem, config, device, total_steps(counts, config.training.accumulate))
        last = directory / checkpoint.LAST if directory else None
        if last is not None and last.exists():
            state.restore(last, config)
        seen = len(state.history) if reported is None else reported
        stop = False
        for row in state.history[seen:]:
            told = report is not None and bool(report(row))
            stop = workers.from_first(lambda: told) or stop  # noqa: B023
        while len(state.history) < min(epochs, stop_after or epochs) and not stop:
            epoch = len(state.history) + 1
            stage = config.training.stage_of(epoch)
            resize(stage.image_size)
            if epoch > 1 and stage != config.training.stage_of(epoch - 1):
                state.best = None  # figures of smaller images are not comparable
            watch = _from(sum(counts[: epoch - 1]), sum(counts), on_step or _unseen)
            trained = _train_epoch(problem, config, state, workers, epoch, watch, micro_batch)
            row = workers.from_first(lambda: trained | _evaluate(problem, state.model, (name, *must_be_finite), epoch))  # noqa: B023
            if state.best is None or _better(row[name], state.best[name], mode):
                state.best = dict(row)
                if directory is not None and workers.first:
                    checkpoint.save_weights(directory / checkpoint.BEST, state.model, config.tree(), state.best)
            row |= {f"best/{key}": value for key, value in state.best.items() if key.startswith("val/")}
            row["best/epoch"] = state.best["epoch"]
            state.history.append(row)
            if last is not None and workers.first:
                state.save(last, config)
            workers.wait()  # whoever starts again finds what all have seen
            if report is not None and len(state.history) > seen:
                told = bool(report(row))
                stop = workers.from_first(lambda: told)  # noqa: B023
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
    if Workers().size > 1 and device.type == "cuda":
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimizer = MultiTaskOptimizer(
        config.optimizer.build(model.parameters()),
        strategy=get_strategy(config.strategy.name, **config.strategy.hyperparameters),
        tasks=problem.tasks,
        shared=problem.shared_parameters(model),
        seed=config.seed,
        engine=config.training.engine,
        update_every=config.training.update_every,
    )
    return _State(model, optimizer, config.schedule.build(optimizer, steps), history=[])


def _check_portions(config: RunConfig, micro_batch: int | None) -> None:
    """Raises InputError where a batch cannot be taken in portions."""
    if micro_batch is None:
        return
    name = config.strategy.name
    if strategy_info(name).samples > 1 or config.training.engine == "feature":
        why = f"strategy {name}" if strategy_info(name).samples > 1 else "training.engine=feature"
        raise InputError(f"{why} takes every portion of a batch for a sample of its own; train without a micro-batch")


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


def _train_epoch(
    problem: Problem,
    config: RunConfig,
    state: _State,
    workers: Workers,
    epoch: int,
    on_step: Callable[[int], None],
    micro_batch: int | None,
) -> Row:
    started = time.perf_counter()
    settings = config.training
    device = next(state.model.parameters()).device
    order = epoch_order(problem, config, epoch)
    draws = generator(config.seed, "augmentation", epoch)
    totals = dict.fromkeys(problem.tasks, torch.zeros((), device=device))
    norms: list[torch.Tensor] = []
    conflicts = Conflicts()
    lr = state.optimizer.param_groups[0]["lr"]
    if workers.size > 1:  # dropout of their own, which no checkpoint of the first process holds
        torch.manual_seed(derive_seed(config.seed, "worker", workers.rank, epoch))
    state.model.train()
    done = 0
    for group in grouped(split(order, settings.batch_size), settings.accumulate):
        state.optimizer.zero_grad()
        samples = sum(len(indices) for indices in group)
        for indices in group:
            portions = workers.portions(len(indices), micro_batch)
            for portion, batch in load(problem, indices, draws, portions):
                losses: dict[str, torch.Tensor | None] = dict.fromkeys(problem.tasks)
                if batch is not None:
                    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                        losses |= problem.losses(state.model, batch)
                for task, loss in losses.items():
                    if loss is not None:
                        totals[task] = totals[task] + loss.detach() * (portion.count / len(order))
                last = indices is group[-1] and portion is portions[-1]
                # a portion counts by its share of samples, so that the step is that of the joint batch
                _backward(state, losses, portion, samples, last, epoch)
            done += 1
            on_step(done)
        conflicts.see(state.optimizer.diagnostics)
        norms.append(_clip(state.model, settings.clip_norm))
        state.optimizer.step()
        lr = state.optimizer.param_groups[0]["lr"]
        state.schedule.step()
    means = dict(zip(totals, workers.sum(list(totals.values()))))
    seconds = time.perf_counter() - started
    row: Row = {"epoch": float(epoch)}
    row |= {f"train/{task}": mean.item() for task, mean in means.items()}
    row["train/grad_norm"] = torch.stack(norms).mean().item()
    row["train/lr"] = float(lr)
    row |= conflicts.row()
    row["time/train_s"] = seconds
    row["time/samples_per_s"] = len(order) / seconds
    return row


def _backward(
    state: _State, losses: Mapping[str, torch.Tensor | None], portion: Portion, samples: int, combine: bool, epoch: int
) -> None:
    share = portion.together / samples
    try:
        state.optimizer.backward(
            {task: None if loss is None else loss * share for task, loss in losses.items()},
            combine=combine,
            counts=dict.fromkeys(losses, portion.count),
        )
    except LossNotFinite as error:
        lr = state.optimizer.param_groups[0]["lr"]
        raise TrainingDiverged(
            f"loss {error.task!r} became {error.value} in epoch {epoch} at learning rate {lr:.3g}; "
            "lower optimizer.lr, add training.clip_norm, or lengthen the warm-up"
        ) from None


def _clip(model: torch.nn.Module, limit: float | None) -> torch.Tensor:
    """The norm of the whole gradient, clipped to `limit` if there is one."""
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)


def _evaluate(problem: Problem, model: torch.nn.Module, objectives: Sequence[str], epoch: int) -> Row:
    started = time.perf_counter()
    model.eval()
    with torch.inference_mode():
        metrics = {f"val/{name}": float(value) for name, value in problem.evaluate(model, "val").items()}
    for name in objectives:
        if name not in metrics:
            raise InputError(f"objective {name!r} is not among the metrics: {', '.join(sorted(metrics))}")
        if not math.isfinite(metrics[name]):
            raise TrainingDiverged(f"{name} became {metrics[name]} in epoch {epoch}")
    return metrics | {"time/val_s": time.perf_counter() - started}


def _better(value: float, than: float, mode: str) -> bool:
    return value < than if mode == "min" else value > than
