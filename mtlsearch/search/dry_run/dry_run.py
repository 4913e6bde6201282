"""What a study will take, before it begins: some of its configurations are built and timed for three steps each.

Everything is checked that a search checks, and nothing stays: what must be rendered or saved lies in a temporary
folder. Ray is not started.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import torch
from rich.console import Console

from mtlsearch.errors import InputError
from mtlsearch.search.dry_run.drawing import sample_configs
from mtlsearch.search.dry_run.prediction import Prediction, predict
from mtlsearch.search.dry_run.rehearsing import rehearse_apart
from mtlsearch.search.executors.resources import Demand, Resources, plan_resources, this_machine
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.preparing import check_resources, check_search
from mtlsearch.search.sampling.learned import learn_from
from mtlsearch.training.config import RunConfig
from mtlsearch.training.merge import merge
from mtlsearch.training.problem import find_problem
from mtlsearch.training.progress import progressing
from mtlsearch.training.rehearsal import Rehearsal, prepare_stand_in

#: configurations of the sampler that are timed
SAMPLES = 5
#: memory that is planned for a trial, over what was measured: an allocator's waste, a CUDA context, a longer batch
HEADROOM = 1.25


@dataclass(frozen=True)
class Timed:
    """A configuration and what it costs, or why it cannot be trained."""

    name: str
    config: RunConfig
    cost: Rehearsal | None
    fault: str = ""


@dataclass(frozen=True)
class DryRun:
    """What was measured and what it comes to. `prediction` is None where no configuration could be trained."""

    plan: SearchPlan
    baselines: tuple[Timed, ...]
    sampled: tuple[Timed, ...]
    wanted: int
    """configurations that were to be sampled; there are fewer where the constraints admit fewer"""
    full: tuple[Timed, ...]
    """at the proxy's full size: the baselines, then the sampled one of middle time"""
    data_s: float
    """seconds that rendering or packing the data will take, where they are not ready"""
    at_once: int
    """configurations that were timed at one time"""
    resources: Resources
    gpus: int
    suggested: Resources
    prediction: Prediction | None
    gpu_bytes: float = 0.0
    """memory of a GPU; 0 where there is none"""

    @property
    def trial_gpu_bytes(self) -> float:
        """Memory that is planned for a trial on its GPU, by the configuration that takes most."""
        costs = [one.cost for one in [*self.timed, *self.full] if one.cost is not None]
        return HEADROOM * max((cost.gpu_memory for cost in costs), default=0)

    @property
    def timed(self) -> tuple[Timed, ...]:
        return self.baselines + self.sampled

    def money(self, price_per_gpu_hour: float) -> tuple[float, float]:
        """What all GPUs of this machine cost for the study: as expected, and without early stopping."""
        assert self.prediction is not None
        per_second = price_per_gpu_hour * self.gpus / 3600
        return self.prediction.study_s * per_second, self.prediction.most_s * per_second


def dry_run(
    plan: SearchPlan,
    *,
    results: Path,
    name: str | None = None,
    demand: Demand = Demand(),  # noqa: B008 - frozen
    price_per_gpu_hour: float | None = None,
    console: Console | None = None,
    from_study: Path | None = None,
) -> DryRun:
    """Times the baselines and five configurations of the sampler, each in a process of its own with a trial's threads:
    on a CPU as many at a time as the search trains, on a GPU one after the other.

    from_study: the folder of another study that the sampler is to learn from; what is of use of it is said.

    Raises:
        InputError: where a search would, `from_study` included, or a price is given and there is no GPU to pay for.
    """
    console = console or Console(markup=False, highlight=False)
    check_search(plan, results, name)
    resources = check_resources(plan, demand, this_machine())
    if from_study is not None:
        console.print("\n".join(learn_from(from_study, plan).lines()), soft_wrap=True)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if price_per_gpu_hour is not None and not gpus:
        raise InputError(
            "--price-per-gpu-hour: torch sees no GPU here, and a CPU's time says nothing of a GPU's; make the dry run "
            "on the machine that will search"
        )
    count = min(SAMPLES, plan.settings.num_samples - len(plan.baselines))
    named = [(one.name, one.config) for one in plan.baselines]
    named += [(f"sample {place}", one) for place, one in enumerate(sample_configs(plan, count), start=1)]
    at_once = 1 if gpus else resources.concurrent
    with tempfile.TemporaryDirectory(prefix="mtlsearch-dry-run-") as temporary:
        folder = Path(temporary)
        data_s = _prepare([config for _, config in named], folder, console)
        timed = _time(named, folder, resources.cpus, at_once)
        baselines, sampled = timed[: len(plan.baselines)], timed[len(plan.baselines) :]
        full: list[Timed] = []
        if plan.settings.proxy is not None:
            largest = [_at_full_size(one, plan) for one in [*baselines, *_middle(sampled)]]
            data_s += _prepare([config for _, config in largest], folder, console)
            full = _time(largest, folder, resources.cpus, at_once)
    costs = [one.cost for one in [*timed, *full] if one.cost is not None]
    suggested = plan_resources(
        plan.settings.num_samples,
        demand.cpus_per_trial,
        trial_bytes=HEADROOM * max((cost.memory for cost in costs), default=1),
        trial_gpu_bytes=HEADROOM * max((cost.gpu_memory for cost in costs), default=0),
    )
    prediction = None
    if any(one.cost is not None for one in timed):
        lanes = min(resources.concurrent, gpus) if gpus else resources.concurrent
        whole = _costs(full[: len(baselines)]), _costs(full[len(baselines) :])
        prediction = predict(plan.settings, _costs(baselines), _costs(sampled), whole, lanes, gpus)
    return DryRun(
        plan=plan,
        baselines=tuple(baselines),
        sampled=tuple(sampled),
        wanted=count,
        full=tuple(full),
        data_s=data_s,
        at_once=at_once,
        resources=resources,
        gpus=gpus,
        suggested=suggested,
        prediction=prediction,
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if gpus else 0.0,
    )


def _costs(timed: Iterable[Timed]) -> list[Rehearsal]:
    return [one.cost for one in timed if one.cost is not None]


def _middle(sampled: Sequence[Timed]) -> list[Timed]:
    """The one of middle time, of those that can be trained."""
    seconds = {one.cost.training_s(): one for one in sampled if one.cost is not None}
    return [seconds[median_low(seconds)]] if seconds else []


def _at_full_size(one: Timed, plan: SearchPlan) -> tuple[str, RunConfig]:
    assert plan.settings.proxy is not None
    return f"{one.name}, full size", plan.config_of(merge(one.config.tree(), plan.settings.proxy.full))


def _prepare(configs: Sequence[RunConfig], folder: Path, console: Console) -> float:
    """Makes the data of these configs ready, or a stand-in, and returns what the whole would take from the start."""
    seconds, seen = 0.0, set()
    for config in configs:
        key = f"{config.problem} {config.tree().get('data')}"
        if key not in seen:
            seen.add(key)
            moments: list[tuple[float, int]] = []
            with progressing(console, "preparing a little of the data") as shown:

                def progress(done: int, total: int) -> None:
                    moments.append((time.perf_counter(), done))  # noqa: B023 - called before the next turn
                    shown(done, total)

                problem = find_problem(config.problem)(config)
                whole = prepare_stand_in(problem, folder, progress)
            if len(moments) > 1:  # from the first report on: what comes before is done once, however much there is
                (began, before), (ended, done) = moments[0], moments[-1]
                seconds += sum(whole.sizes.values()) * (ended - began) / max(1, done - before)
    return seconds


def _time(named: Sequence[tuple[str, RunConfig]], folder: Path, threads: int, at_once: int) -> list[Timed]:
    def one(named: tuple[str, RunConfig]) -> Timed:
        name, config = named
        outcome = rehearse_apart(config, folder, threads)
        return Timed(name, config, None, outcome) if isinstance(outcome, str) else Timed(name, config, outcome)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, named))
