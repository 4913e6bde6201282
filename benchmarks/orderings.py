"""The orderings that the three papers claim, measured on synthetic faces: paired seeds, equal learning-rate budgets.

    python benchmarks/orderings.py --output results/reference/orderings          # an hour and a half on two cores
    python benchmarks/orderings.py --claims pcgrad --epochs 2 --seeds 2 --output /somewhere   # to see it work

Each arm of a claim is trained at every learning rate of the same list on a tuning seed; the one with the best
validation figure is its own, for each metric. Then both arms are trained on fresh seeds, the same for both, without
early stopping, and the weights of the last epoch are scored on the test split. Printed is the paired difference, arm
less control, with Student's 95 % interval over seeds: below zero the claim holds here, above it is contradicted, and
where the interval holds zero it is undecided. What is true of rendered faces at 64 pixels and some hundred steps need
not be true of photographs.

Every run is appended to runs.jsonl when it ends; a second call goes on after the runs that are there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

LEARNING_RATES = (1.5e-3, 3e-3, 6e-3, 12e-3, 24e-3)
#: of the cascades, a run of which takes three times as long
CASCADE_RATES = LEARNING_RATES[:4]
DATA = {"name": "synthetic", "image_size": 64, "train": 2400, "val": 400, "test": 1200}
#: gentle, as in the recipe `quick`: so short a training has to see faces more than variations of them
AUGMENTATION = {"rotation": 15.0, "scale": 0.05, "shift": 0.03, "gamma": 0.15, "erase": 0.0}
COMMON: dict[str, Any] = {
    "data": DATA,
    "augmentation": AUGMENTATION,
    "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.01},
    "schedule": {"name": "onecycle", "pct_start": 0.3},
    "training": {"epochs": 10, "batch_size": 48},
}


def heads(landmarks: float, pose: float) -> dict[str, Any]:
    """A small ResNet with a head for each task, weighted so; a weight of 0 is single-task learning."""
    both = {
        "landmarks": {"kind": "points", "loss": {"kind": "smooth_l1", "weight": landmarks}},
        "pose": {"kind": "rotation_6d", "weight": pose},
    }
    strategy = {"name": "weighted_sum"}
    return {"system": "composed", "model": {"backbone": "test_resnet", "heads": both}, "strategy": strategy}


def morphable(strategy: str) -> dict[str, Any]:
    model = {"backbone": "test_resnet", "head": {"kind": "linear"}}
    return {"system": "morphable", "model": model, "strategy": {"name": strategy}}


def dense(w1: float, w2: float) -> dict[str, Any]:
    losses = {"points": {"kind": "wing_mse", "w": 15.0, "epsilon": 3.0, "w1": w1, "w2": w2}, "unit": 256.0}
    model = {"backbone": "test_resnet"}
    return {"system": "dense", "model": model, "losses": losses, "strategy": {"name": "weighted_sum"}}


def cascade(blocks: int = 2, **links: bool) -> dict[str, Any]:
    """A narrow cascade, at six epochs: a step of two blocks takes six times one of the others."""
    model = {"backbone": "test_resnet", "channels": 32, "stem": 16, "blocks": blocks, "links": links}
    training = {**COMMON["training"], "epochs": 6}
    losses = {"landmarks": {"visible": "inside"}}
    strategy = {"name": "weighted_sum"}
    return {"system": "cascade", "model": model, "losses": losses, "training": training, "strategy": strategy}


@dataclass(frozen=True)
class Claim:
    """`arm` is claimed to be better than `control` on each metric."""

    name: str
    source: str
    arm: dict[str, Any]
    control: dict[str, Any]
    metrics: tuple[str, ...]
    rates: tuple[float, ...] = LEARNING_RATES


BOTH = ("nme", "mae")
CLAIMS = (
    Claim("mtl-landmarks", "Kim 2023, 1: multi-task against landmarks alone", heads(1, 1), heads(1, 0), ("nme",)),
    Claim("mtl-pose", "Kim 2023, 1: multi-task against pose alone", heads(1, 1), heads(0, 1), ("mae",)),
    Claim(
        "pcgrad",
        "Kim 2023, 3: PCGrad against the weighted sum",
        morphable("pcgrad"),
        morphable("weighted_sum"),
        BOTH,
    ),
    Claim("hybrid-wing", "Basak 2023, fig. 3: Wing + MSE against Wing", dense(1.5, 0.5), dense(1.5, 0), ("nme",)),
    Claim("hybrid-mse", "Basak 2023, fig. 3: Wing + MSE against MSE", dense(1.5, 0.5), dense(0, 0.5), ("nme",)),
    Claim("blocks", "Zhang 2018, 1: two blocks against one", cascade(), cascade(blocks=1), BOTH, CASCADE_RATES),
    *(
        Claim(
            f"link-{link}",
            f"Zhang 2018, 3.3: with and without {link}",
            cascade(),
            cascade(**{link: False}),
            BOTH,
            CASCADE_RATES,
        )
        for link in ("sum", "unification", "insertion")
    ),
)


def config_of(arm: dict[str, Any], seed: int, lr: float, epochs: int | None) -> dict[str, Any]:
    config = json.loads(json.dumps({**COMMON, **arm, "seed": seed}))
    config["optimizer"]["lr"] = lr
    if epochs is not None:
        config["training"]["epochs"] = epochs
    return config


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One training, scored on validation and test with the weights of its last epoch."""
    import torch

    from mtlsearch.faces.problem import FaceProblem
    from mtlsearch.training import TrainingDiverged, train
    from mtlsearch.training.recipes import parse_run_config

    torch.set_num_threads(1)
    parsed = parse_run_config(config, "orderings")
    problem = FaceProblem(parsed)  # type: ignore[arg-type]
    problem.prepare()
    started = time.perf_counter()
    try:
        result = train(problem, parsed)
    except TrainingDiverged as reason:  # such a learning rate is not chosen
        return {"config": config, "diverged": str(reason), "val": {}, "test": {}, "seconds": 0.0}
    seconds = time.perf_counter() - started
    model = result.model.eval()
    with torch.inference_mode():
        scores = {split: problem.evaluate(model, split) for split in ("val", "test")}
    return {"config": config, **scores, "seconds": round(seconds, 1)}


class Runs:
    """The runs on disk, by their configs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._done = {self._key(run["config"]): run for run in map(json.loads, lines)}

    @staticmethod
    def _key(config: dict[str, Any]) -> str:
        return json.dumps(config, sort_keys=True)

    def __getitem__(self, config: dict[str, Any]) -> dict[str, Any]:
        return self._done[self._key(config)]

    def complete(self, configs: Iterable[dict[str, Any]], workers: int) -> None:
        """Trains what is not there yet."""
        missing = {self._key(config): config for config in configs if self._key(config) not in self._done}
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn) as pool, self._path.open("a") as file:
            futures = [pool.submit(run, config) for config in missing.values()]
            for number, future in enumerate(as_completed(futures), start=1):
                finished = future.result()
                self._done[self._key(finished["config"])] = finished
                file.write(json.dumps(finished) + "\n")
                file.flush()
                print(f"{number} of {len(missing)} runs, {finished['seconds']} s", flush=True)


def best_rate(runs: Runs, claim: Claim, arm: dict[str, Any], metric: str, epochs: int | None) -> float:
    """The arm's own learning rate for a metric, by the validation figure of the tuning seed."""

    def score(lr: float) -> float:
        return float(runs[config_of(arm, 0, lr, epochs)]["val"].get(metric, np.inf))

    return min(claim.rates, key=score)


def verdict(low: float, high: float) -> str:
    if high < 0:
        return "holds"
    return "contradicted" if low > 0 else "undecided"


def table(claims: Sequence[Claim], runs: Runs, seeds: int, epochs: int | None) -> str:
    lines = [
        f"| claim | metric | learning rates | arm | control | difference, 95 % interval over {seeds} paired seeds | |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for claim in claims:
        for metric in claim.metrics:
            rates = [best_rate(runs, claim, arm, metric, epochs) for arm in (claim.arm, claim.control)]
            scores = np.array(
                [
                    [runs[config_of(arm, seed, lr, epochs)]["test"][metric] for seed in range(1, seeds + 1)]
                    for arm, lr in zip((claim.arm, claim.control), rates)
                ]
            )
            difference = scores[0] - scores[1]
            half = stats.t.ppf(0.975, seeds - 1) * difference.std(ddof=1) / np.sqrt(seeds)
            low, high = difference.mean() - half, difference.mean() + half
            lines.append(
                f"| {claim.source} | {metric} | {rates[0]:g}, {rates[1]:g} | {scores[0].mean():.3f} | "
                f"{scores[1].mean():.3f} | {difference.mean():+.3f} [{low:+.3f}, {high:+.3f}] | "
                f"**{verdict(low, high)}** |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs.jsonl and table.md")
    parser.add_argument("--claims", nargs="*", choices=[claim.name for claim in CLAIMS], help="only these")
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds after tuning")
    parser.add_argument("--epochs", type=int, help="in the place of 10")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="trainings at once")
    options = parser.parse_args()
    if options.seeds < 2:
        sys.exit("an interval over seeds takes two or more")
    claims = [claim for claim in CLAIMS if not options.claims or claim.name in options.claims]
    options.output.mkdir(parents=True, exist_ok=True)
    runs = Runs(options.output / "runs.jsonl")
    tuned = [(arm, lr) for claim in claims for arm in (claim.arm, claim.control) for lr in claim.rates]
    runs.complete((config_of(arm, 0, lr, options.epochs) for arm, lr in tuned), options.workers)
    chosen = [
        (arm, best_rate(runs, claim, arm, metric, options.epochs))
        for claim in claims
        for arm in (claim.arm, claim.control)
        for metric in claim.metrics
    ]
    seeds = range(1, options.seeds + 1)
    runs.complete((config_of(arm, seed, lr, options.epochs) for seed in seeds for arm, lr in chosen), options.workers)
    text = table(claims, runs, options.seeds, options.epochs)
    (options.output / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
