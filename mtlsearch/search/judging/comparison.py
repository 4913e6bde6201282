"""One confirmed configuration against another: the difference, and how sure it is over seeds and over samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy import stats

from mtlsearch.search.judging.confirm import ENOUGH_SEEDS, Confirmed
from mtlsearch.search.plan.figures import is_constant, is_cost, metric_of
from mtlsearch.training.sample_scores import Scores

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
_RESAMPLES = 4_000


@dataclass(frozen=True)
class Comparison:
    """One configuration against another on one figure, paired by seed and, where samples are scored, by sample."""

    figure: str
    """split and metric, or a cost: "test/nme", "cost/macs" """
    by_seed: tuple[float, ...]
    """the one's figures less the other's"""
    bounds: tuple[float, float] | None
    """95 % interval of the mean; None with too few seeds to claim anything, and of costs, which do not vary"""
    over: str
    """what the interval is over: "seeds and samples", "seeds", or "" where there is none"""

    @property
    def mean(self) -> float:
        return fmean(self.by_seed)

    @property
    def tied(self) -> bool:
        """Whether the interval admits no difference."""
        return self.bounds is not None and self.bounds[0] <= 0 <= self.bounds[1]


def compare(one: Confirmed, other: Confirmed, objectives: Iterable[str]) -> list[Comparison]:
    """`one` against `other` on every objective, on validation and on test."""
    found = []
    for name in objectives:
        for split in ("val",) if is_cost(name) else ("val", "test"):
            differences = paired_difference(one, other, name, split)
            bounds, over = None, ""
            if not is_constant(name) and len(differences) >= ENOUGH_SEEDS and np.isfinite(differences).all():
                table = _by_sample(one.scores, other.scores, split, metric_of(name))
                bounds = over_seeds(differences) if table is None else over_seeds_and_samples(*table)
                over = "seeds" if table is None else "seeds and samples"
            figure = name if is_cost(name) else f"{split}/{metric_of(name)}"
            found.append(Comparison(figure, tuple(differences.tolist()), bounds, over))
    return found


def paired_difference(one: Confirmed, other: Confirmed, name: str, split: str) -> Floats:
    """(seeds,) figures of `one` less those of `other` on the same seeds."""
    return np.array(one.values(name, split)) - np.array(other.values(name, split))


def over_seeds(differences: Floats) -> tuple[float, float]:
    """95 % interval of the mean difference, by Student's t. differences (seeds,)."""
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    bounds = stats.ttest_1samp(differences, 0).confidence_interval(LEVEL)
    return float(bounds.low), float(bounds.high)


def over_seeds_and_samples(differences: Floats, groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of a difference of metrics by the bootstrap, over other seeds and other samples.

    Seeds and samples are drawn anew, independently of each other (the "pigeonhole" of Owen 2007, Annals of Applied
    Statistics 1(2)); samples within their groups, since the metric is the mean of the groups' means. A percentile
    interval over few seeds is too short (Hesterberg 2015, The American Statistician 69(4), section 4.2); so the seeds'
    deviations are stretched by t·√(n/(n−1))/z, which makes it Student's interval where samples add nothing.

    Args:
        differences: (seeds, samples) the one's figures less the other's.
        groups: (samples,) the group of each; -1 does not count.
    """
    seeds = len(differences)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups[groups >= 0])]
    effect = sum(differences[:, row].mean(axis=1) for row in rows) / len(rows)
    quantile = 0.5 + LEVEL / 2
    stretch = stats.t.ppf(quantile, seeds - 1) / stats.norm.ppf(quantile) * math.sqrt(seeds / (seeds - 1))
    stretched = differences + (stretch - 1) * (effect - effect.mean())[:, None]

    def metric(drawn_seeds: npt.NDArray[np.int64], *drawn_rows: npt.NDArray[np.int64], axis: int = -1) -> Floats:
        # (resamples, seeds, 1) and (resamples, 1, samples of the group)
        picked = np.moveaxis(np.atleast_1d(drawn_seeds), axis, -1)[..., :, None]
        means = [
            stretched[picked, np.moveaxis(np.atleast_1d(drawn), axis, -1)[..., None, :]].mean(axis=(-2, -1))
            for drawn in drawn_rows
        ]
        return np.mean(means, axis=0)

    if np.ptp(differences) == 0:
        return float(differences[0, 0]), float(differences[0, 0])
    found = stats.bootstrap(
        (np.arange(seeds), *rows),
        metric,
        n_resamples=_RESAMPLES,
        batch=max(1, 2_000_000 // differences.size),
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),  # the same study always says the same
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _by_sample(
    one: Sequence[Scores], other: Sequence[Scores], split: str, metric: str
) -> tuple[Floats, npt.NDArray[np.int64]] | None:
    """Differences (seeds, samples) and groups (samples,), where all runs were scored on the same samples."""
    key = split, metric
    if not all(key in scores for scores in (*one, *other)):
        return None
    groups = one[0][key].groups
    if not all(np.array_equal(scores[key].groups, groups) for scores in (*one, *other)):
        return None
    return np.stack([a[key].values - b[key].values for a, b in zip(one, other, strict=True)]), groups
