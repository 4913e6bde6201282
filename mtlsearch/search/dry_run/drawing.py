"""A few points of a space that show what a search will try, before it has begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from mtlsearch.search.plan.constraints import Checker
from mtlsearch.search.plan.distributions import Options, Range
from mtlsearch.search.plan.plan import SearchPlan
from mtlsearch.search.plan.settings import GridSampler
from mtlsearch.search.plan.space import Point
from mtlsearch.search.sampling.asking import Asker
from mtlsearch.training.config import RunConfig

#: points that are drawn, of which the few are chosen
DRAWN = 50


def sample_configs(plan: SearchPlan, count: int) -> list[RunConfig]:
    """`count` configurations of 50 that the sampler draws before it has learned anything, or fewer where fewer satisfy
    the constraints: those that differ most, option by option and range by range. Of a grid, of all its points."""
    checker = Checker(plan.settings.constraints)
    chosen: list[RunConfig] = []
    for point in most_different(_candidates(plan), dict(plan.space.parameters())):
        if len(chosen) == count:
            break
        config = plan.config_of(plan.space.at(point))
        if not checker.fault(config):
            chosen.append(config)
    return chosen


def _candidates(plan: SearchPlan) -> list[Point]:
    if isinstance(plan.settings.sampler, GridSampler):
        known = [baseline.point for baseline in plan.baselines]
        return [point for point in islice(plan.space.grid(), plan.settings.num_samples) if point not in known]
    asker = Asker(plan.space, plan.settings)
    drawn = []
    for _ in range(DRAWN):
        asked, _ = asker.ask()
        drawn.append(dict(asked.params))
        asker.tell(asked, None)  # nothing is known of it, so that the next one is drawn as the first was
    return drawn


def most_different(points: Sequence[Point], parameters: dict[str, Range | Options]) -> Iterable[Point]:
    """The points in an order in which each next one shows what was shown least: options, and fifths of the ranges."""
    shown: Counter[tuple[str, object]] = Counter()

    def familiar(point: Point) -> float:
        return sum(shown[part] for part in _parts(point, parameters)) / max(1, len(point))

    left = list(points)
    while left:
        taken = left.pop(min(range(len(left)), key=lambda place: familiar(left[place])))
        shown.update(_parts(taken, parameters))
        yield taken


def _parts(point: Point, parameters: dict[str, Range | Options]) -> list[tuple[str, object]]:
    parts: list[tuple[str, object]] = []
    for name, value in point.items():
        parameter = parameters[name]
        parts.append((name, min(4, int(5 * parameter.position(value))) if isinstance(parameter, Range) else value))
    return parts
