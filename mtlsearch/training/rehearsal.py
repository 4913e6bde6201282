"""A few steps of a training by the clock: what the whole of it will take in time and memory, before it begins."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mtlsearch.training.config import RunConfig
from mtlsearch.training.loop import choose_device, train
from mtlsearch.training.problem import HasStandIn, Problem, Progress, Resizes, WholeData, find_problem

#: steps that the clock sees, after one that warms up
_TIMED = 3
#: and at most, where steps are quick
_MOST = 200
#: what takes less is done once more, set-up included, and counts the second time, over as many steps as fit in half
#: of this: a search reuses its processes, so that most of its trials begin in a warm one
_QUICK_S = 5.0


@dataclass(frozen=True)
class EpochCost:
    """An epoch of one stage of a training, in seconds."""

    until: int
    """the last epoch of the stage"""
    step_s: float
    """an optimizer step, all its micro-batches included"""
    steps: float
    """of an epoch; the last one may be a part of one"""
    val_s: float
    """validation after an epoch"""
    save_s: float
    """its checkpoints"""

    @property
    def seconds(self) -> float:
        return self.steps * self.step_s + self.val_s + self.save_s


@dataclass(frozen=True)
class Rehearsal:
    """What a config costs, by a few steps and a pass over the validation split at each size of its images."""

    setup_s: float
    """seconds from nothing to the second step: data opened, model built"""
    stages: tuple[EpochCost, ...]
    """in order, the last of them up to the last epoch"""
    test_s: float
    """seconds for the test split, taken to cost a sample what validation does"""
    memory: int
    """peak of the process, bytes, shared libraries and mapped data included"""
    gpu_memory: int
    """peak on the GPU, bytes, with the whole data; the CUDA context is beside it. 0 without a GPU"""

    @property
    def epochs(self) -> int:
        return self.stages[-1].until

    @property
    def whole(self) -> EpochCost:
        """An epoch after all cheap beginnings."""
        return self.stages[-1]

    def epoch_s(self, epoch: int) -> float:
        """Seconds of an epoch, from 1 on."""
        return next(stage for stage in self.stages if epoch <= stage.until).seconds

    def training_s(self, survival: Sequence[float] | None = None) -> float:
        """Seconds of a whole training, or on average where epoch e + 1 is run in a share `survival[e]` of cases."""
        shares = [1.0] * self.epochs if survival is None else survival
        return self.setup_s + sum(share * self.epoch_s(epoch) for epoch, share in enumerate(shares, start=1))


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
    rehearsal = _rehearse(config, folder, _TIMED)
    seconds = max(stage.step_s for stage in rehearsal.stages)
    if seconds * _TIMED + rehearsal.whole.val_s < _QUICK_S:
        rehearsal = _rehearse(config, folder, max(_TIMED, min(_MOST, int(_QUICK_S / 2 / seconds))))
    return replace(rehearsal, memory=_peak_memory())


def _rehearse(config: RunConfig, folder: Path, timed: int) -> Rehearsal:
    device = choose_device(config.training.device)
    began = time.perf_counter()
    problem = find_problem(config.problem)(config)
    data = prepare_stand_in(problem, folder)
    prepared_s = time.perf_counter() - began
    training = config.training
    stages = [*training.stages, training.stage_of(training.epochs)]
    sizes = dict.fromkeys(stage.image_size for stage in stages)
    measured = {size: _measure(problem, config, size, data, folder, timed) for size in sizes}
    batch = min(training.batch_size, data.sizes["train"]) * training.accumulate
    costs = tuple(
        EpochCost(
            until=stage.until,
            step_s=measured[stage.image_size].step_s,
            steps=stage.data * data.sizes["train"] / batch,
            val_s=measured[stage.image_size].sample_s * data.sizes["val"],
            save_s=measured[stage.image_size].save_s,
        )
        for stage in stages
    )
    held = torch.cuda.max_memory_reserved(device) + data.device_bytes if device.type == "cuda" else 0
    first, last = measured[stages[0].image_size], measured[stages[-1].image_size]
    return Rehearsal(prepared_s + first.setup_s, costs, last.sample_s * data.sizes["test"], 0, held)


@dataclass(frozen=True)
class _Measured:
    """Seconds: of building the model, a step, a validation sample, the checkpoints."""

    setup_s: float
    step_s: float
    sample_s: float
    save_s: float


def _measure(
    problem: Problem, config: RunConfig, image_size: int | None, data: WholeData, folder: Path, timed: int
) -> _Measured:
    """Trains so many steps, and some more where they make a whole round of what only some steps do."""
    training = config.training
    timed = -(-timed // training.update_every) * training.update_every
    samples = min(training.batch_size, data.sizes["train"])
    short = training.model_copy(update={"batch_size": samples, "stages": []})
    device = choose_device(training.device)
    moments: list[float] = []

    def on_step(done: int, total: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        moments.append(time.perf_counter())

    few: Any = FewSteps(problem, (1 + timed) * training.accumulate * samples, image_size)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        result = train(
            few,
            config.model_copy(update={"training": short}),
            directory=Path(checkpoints),
            objective=(f"val/{problem.metrics[0]}", "min"),
            stop_after=1,
            on_step=on_step,
        )
        ended = time.perf_counter()
    step = (moments[-1] - moments[training.accumulate - 1]) / timed
    result.model.eval()
    started = time.perf_counter()
    with torch.inference_mode():
        problem.evaluate(result.model, "val")
    sample = (time.perf_counter() - started) / problem.size("val")
    return _Measured(max(0.0, moments[training.accumulate - 1] - began - step), step, sample, ended - moments[-1])


class FewSteps:
    """A problem with an epoch of a few steps, images of one size and no validation; what it lacks in samples it takes
    again. For trainings in one process."""

    def __init__(self, problem: Problem, samples: int, image_size: int | None) -> None:
        self._problem, self._samples, self._image_size = problem, samples, image_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def resize(self, image_size: int | None) -> None:
        """To its own size, whatever the training asks for, and afterwards too: what follows is timed at it."""
        if isinstance(self._problem, Resizes):
            self._problem.resize(self._image_size)

    def size(self, split: str) -> int:
        return self._samples

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        return self._problem.batch(indices % self._problem.size("train"), generator)

    def evaluate(self, model: torch.nn.Module, split: str) -> dict[str, float]:
        return dict.fromkeys(self._problem.metrics, 1.0)


def _peak_memory() -> int:
    """Bytes. Where there is /proc its figure, which getrusage mixes up with the peak of the process that started us."""
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peaks[0]) * 1024 if peaks else 0
    import resource  # not on Windows, which has /proc as little

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
