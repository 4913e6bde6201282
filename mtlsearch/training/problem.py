"""The Problem protocol: what is learned. The loop, the search and the tracker see nothing else of a domain.

A problem of your own is a class with these members in a module that can be imported, named in the run config as
`problem: my_package.my_module:MyProblem`; examples/own_problem.py is a whole one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from mtlsearch.errors import InputError
from mtlsearch.training.config import DEFAULT_PROBLEM, RunConfig
from mtlsearch.training.sample_scores import SampleScores

Progress = Callable[[int, int], None]
"""called with (done, total) while something slow is prepared"""


@runtime_checkable
class Problem(Protocol):
    """A multi-task learning problem, made from its validated config: `MyProblem(config)`.

    Metric names carry no split: `evaluate` returns `{"nme": …}`, which the loop reports as `val/nme`.
    """

    objectives: ClassVar[dict[str, str]]
    """metric name -> "min" or "max"; the first decides the best epoch unless the search names others"""
    metrics: ClassVar[tuple[str, ...]]
    """the names that `evaluate` gives; any of them can be an objective of a search"""
    tasks: tuple[str, ...]
    """names of the losses, in the order in which the strategy sees them"""

    def __init__(self, config: Any) -> None: ...

    @classmethod
    def config_class(cls, tree: Mapping[str, Any]) -> type[RunConfig]:
        """The RunConfig subclass that `tree` must satisfy; raises InputError when the tree cannot say."""
        ...

    def prepare(self, progress: Progress | None = None) -> None:
        """Makes the data ready on this machine (download, render, pack); safe to call from several processes."""
        ...

    def to(self, device: torch.device) -> None:
        """Where batches are to be made."""
        ...

    def describe_data(self) -> str:
        """One phrase that says what data the numbers come from, for tables and reports."""
        ...

    def size(self, split: str) -> int:
        """Number of samples of "train", "val" or "test"."""
        ...

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        """The augmented training batch of these sample indices, all of its randomness from `generator`."""
        ...

    def build_model(self) -> torch.nn.Module:
        """A fresh model; initialisation may draw from the global generators, which the loop has seeded."""
        ...

    def shared_parameters(self, model: torch.nn.Module) -> list[torch.nn.Parameter] | None:
        """The parameters whose gradients are combined; None derives them from the graph."""
        ...

    def losses(self, model: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """One forward: a scalar per task, static weights applied."""
        ...

    def evaluate(self, model: torch.nn.Module, split: str) -> dict[str, float]:
        """Metrics of the model over a whole split, deterministic."""
        ...

    def trivial_metrics(self, split: str) -> dict[str, float]:
        """The same metrics for one constant prediction, the training split's mean: what any learning must beat."""
        ...


@runtime_checkable
class DrawsFigures(Protocol):
    """What a problem may have beside the members above: pictures of what a model does, for the report of a study."""

    def figures(self, model: torch.nn.Module, split: str, folder: Path) -> dict[str, Path]:
        """Writes PNG files of a model in eval mode on a split into `folder`, which exists: title -> file, in order."""
        ...


@runtime_checkable
class ScoresSamples(Protocol):
    """What a problem may have: its metrics sample by sample, for intervals over the samples too."""

    def sample_scores(self, model: torch.nn.Module, split: str) -> dict[str, SampleScores]:
        """Metric -> its samples, in the same order for every model; each comes to what `evaluate` says."""
        ...


@runtime_checkable
class DividesBatches(Protocol):
    """What a problem may have: parts of a batch without the rest, for several workers and for small portions."""

    def part_of_batch(self, indices: torch.Tensor, generator: torch.Generator, rows: slice) -> Any:
        """Those rows of what `batch(indices, generator)` gives; the generator ends where it would then, too."""
        ...


@runtime_checkable
class Resizes(Protocol):
    """What a problem may have: smaller images for the first stages of a training (`training.stages`)."""

    def resize(self, image_size: int | None) -> None:
        """From now on batches and evaluations show the network images of this side; None: of the problem's own.

        Labels and metrics stay in the units of the problem's own size.
        """
        ...


@runtime_checkable
class HasExample(Protocol):
    """What a problem may have: a model to be measured, for costs as objectives and constraints of a search."""

    def example(self) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
        """The untrained model on the CPU, and one sample as its forward pass takes it."""
        ...


@dataclass(frozen=True)
class WholeData:
    """What a config's data come to, where a stand-in takes their place."""

    sizes: Mapping[str, int]
    """samples of the splits train, val and test"""
    device_bytes: int = 0
    """what they take on a GPU beyond the stand-in"""


@runtime_checkable
class HasStandIn(Protocol):
    """What a problem may have: a few data in the place of those that are not there yet, so that trainings can be timed
    before anything is downloaded or rendered."""

    def prepare_stand_in(self, folder: Path, progress: Progress | None = None) -> WholeData:
        """In the place of `prepare`: opens the data where they are there, else makes a few of the same kind in
        `folder`, an existing one, and writes nothing else. Batches and the model cost what the real ones do."""
        ...


def find_problem(path: str) -> type[Problem]:
    """The problem class at `module:Class`.

    Raises:
        InputError: naming the part of the path that does not lead on.
    """
    module_name, _, class_name = path.partition(":")
    if not class_name or not module_name or module_name.startswith("."):
        raise InputError(f"problem: {path!r} must read 'module:Class', for example {DEFAULT_PROBLEM!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"problem: no module {error.name!r} (from {path!r}); is its folder on PYTHONPATH?") from None
    problem = getattr(module, class_name, None)
    if problem is None:
        raise InputError(f"problem: module {module_name!r} has no class {class_name!r}")
    missing = [name for name in _MEMBERS if not hasattr(problem, name)]
    if missing:
        raise InputError(f"problem: {path!r} lacks {', '.join(missing)} of the Problem protocol")
    return problem


_MEMBERS = (
    "objectives", "metrics", "config_class", "prepare", "to", "describe_data", "size", "batch", "build_model",
    "shared_parameters", "losses", "evaluate", "trivial_metrics",
)  # fmt: skip
