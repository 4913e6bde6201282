"""A few steps of a training by the clock: what the whole of it will take in time and memory, before it begins."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mtlsearch.training.config import RunConfig
from mtlsearch.training.loop import choose_device, train
from mtlsearch.training.problem import HasStandIn, Problem, Progress, WholeData, find_problem

#: steps that the clock sees, after one that warms up
_TIMED = 3
#: steps and a validation that take less are done once more, set-up included, and count the second time: a search reuses
#: its processes, so that most of its trials begin in a warm one
_QUICK_S = 5.0


@dataclass(frozen=True)
class Rehearsal:
    """What a config costs, by three of its steps and a pass over its validation split. Times in seconds."""

    setup_s: float
    """from nothing to the second step: data opened, model built"""
    step_s: float
    """an optimizer step, all its micro-batches included"""
    steps: float
    """of an epoch; the last one may be a part of one"""
    val_s: float
    """validation after an epoch"""
    test_s: float
    """the test split, taken to cost a sample what validation does"""
    save_s: float
    """the checkpoints of an epoch"""
    epochs: int
    memory: int
    """peak of the process, bytes, shared libraries and mapped data included"""
    gpu_memory: int
    """peak on the GPU, bytes, with the whole data; the CUDA context is beside it. 0 without a GPU"""

    @property
    def epoch_s(self) -> float:
        return self.steps * self.step_s + self.val_s + self.save_s

    def training_s(self, epochs: float | None = None) -> float:
        """A training from its start, whole or of so many epochs."""
        return self.setup_s + (self.epochs if epochs is None else epochs) * self.epoch_s


def prepare_stand_in(problem: Problem, folder: Path, progress: Progress | None = None) -> WholeData:
    """Makes a problem's data ready for a rehearsal; where it has no stand-in, as for a training."""
    if isinstance(problem, HasStandIn):
        return problem.prepare_stand_in(folder, progress)
    problem.prepare(progress)
    return WholeData({split: problem.size(split) for split in ("train", "val", "test")})


def rehearse(config: RunConfig, folder: Path) -> Rehearsal:
    """Times a few steps of `config` in this process, which should be a fresh one: its peak memory is what is reported.

    folder: an existing one for what is written, which is for the caller to remove.

    Raises:
        TrainingDiverged, InputError: as training does.
    """
    rehearsal = _rehearse(config, folder)
    if rehearsal.step_s * _TIMED + rehearsal.val_s < _QUICK_S:
        rehearsal = _rehearse(config, folder)
    return replace(rehearsal, memory=_peak_memory())


def _rehearse(config: RunConfig, folder: Path) -> Rehearsal:
    device = choose_device(config.training.device)
    begun = time.perf_counter()
    problem = find_problem(config.problem)(config)
    whole = prepare_stand_in(problem, folder)
    settings = config.training
    samples = min(settings.batch_size, whole.sizes["train"])
    few = config.model_copy(update={"training": settings.model_copy(update={"batch_size": samples})})
    # as many as make whole rounds of what only some steps do
    timed = -(-_TIMED // settings.update_every) * settings.update_every
    moments: list[float] = []

    def on_step(done: int, total: int) -> None:
        _wait(device)
        moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        shortened: Any = _FewSteps(problem, (1 + timed) * settings.accumulate * samples)
        result = train(
            shortened,
            few,
            directory=Path(checkpoints),
            objective=(f"val/{problem.metrics[0]}", "min"),
            stop_after=1,
            on_step=on_step,
        )
        ended = time.perf_counter()
    step = (moments[-1] - moments[settings.accumulate - 1]) / timed
    result.model.eval()
    started = time.perf_counter()
    with torch.inference_mode():
        problem.evaluate(result.model, "val")
    sample = (time.perf_counter() - started) / problem.size("val")
    return Rehearsal(
        setup_s=max(0.0, moments[settings.accumulate - 1] - begun - step),
        step_s=step,
        steps=whole.sizes["train"] / (samples * settings.accumulate),
        val_s=sample * whole.sizes["val"],
        test_s=sample * whole.sizes["test"],
        save_s=ended - moments[-1],
        epochs=settings.epochs,
        memory=0,
        gpu_memory=torch.cuda.max_memory_reserved(device) + whole.device_bytes if device.type == "cuda" else 0,
    )


class _FewSteps:
    """A problem with an epoch of a few steps and no validation; what it lacks in samples it takes again."""

    def __init__(self, problem: Problem, samples: int) -> None:
        self._problem, self._samples = problem, samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def size(self, split: str) -> int:
        return self._samples

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        return self._problem.batch(indices % self._problem.size("train"), generator)

    def evaluate(self, model: torch.nn.Module, split: str) -> dict[str, float]:
        return dict.fromkeys(self._problem.metrics, 1.0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory() -> int:
    """Bytes. Where there is /proc its figure, which getrusage mixes up with the peak of the process that started us."""
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peaks[0]) * 1024 if peaks else 0
    import resource  # not on Windows, which has /proc as little

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
