"""A search plan: a space file read, checked to its last option, and its baselines encoded. No work starts before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.search.plan.distributions import Options
from mtlsearch.search.plan.figures import is_cost
from mtlsearch.search.plan.settings import GridSampler, SearchSettings
from mtlsearch.search.plan.space import Point, Space
from mtlsearch.training.config import RunConfig
from mtlsearch.training.costs import COSTS
from mtlsearch.training.merge import VARIANT_KEYS, Tree, contains_distribution, is_distribution, merge
from mtlsearch.training.problem import find_problem
from mtlsearch.training.recipes import apply_overrides, parse_run_config, recipe_tree
from mtlsearch.training.schema import validate
from mtlsearch.training.yaml_files import read_yaml


@dataclass(frozen=True)
class Baseline:
    """A configuration that the study starts with: the recipe's name, its config, and its point of the space."""

    name: str
    config: RunConfig
    point: Point


@dataclass(frozen=True)
class SearchPlan:
    """What one study will do."""

    name: str
    space: Space
    settings: SearchSettings
    baselines: tuple[Baseline, ...]

    def config_of(self, tree: Mapping[str, Any]) -> RunConfig:
        """The run config of a tree that the space resolved to."""
        return parse_run_config(tree, self.name)

    def point_of(self, config: Mapping[str, Any], source: str) -> Point:
        """The point of the space that comes to a complete config; `source` names it in errors.

        Raises:
            InputError: naming the keys whose values lie outside the space.
        """
        return _point_of(self.space, config, source)

    def probe_trees(self) -> list[Tree]:
        """Complete configs that together hold every option of the space at least once."""
        return [self.config_of(tree).tree() for tree in self.space.probes()]

    def problem_modules(self) -> list[str]:
        """The modules of the problems that its trials train."""
        return sorted({find_problem(tree["problem"]).__module__ for tree in self.probe_trees()})

    def files(self) -> dict[str, Tree]:
        """The plan as files that can be searched again, whatever becomes of the recipes and files that it was made of:
        the space, overrides included, the base it differs from, and each baseline whole."""
        baselines = {f"baselines/{baseline.name}.yaml": baseline.config.tree() for baseline in self.baselines}
        search = {**self.settings.model_dump(mode="json"), "start_with": list(baselines)}
        space = {"base": "base.yaml", "space": self.space.changes, "search": search}
        return {"space.yaml": space, "base.yaml": self.space.base, **baselines}

    @property
    def digest(self) -> str:
        """Names what is searched: two plans with one digest draw from the same space."""
        text = json.dumps([self.space.base, self.space.changes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def shipped_spaces() -> dict[str, Path]:
    """The search spaces that come with the library, by name: beside the package in a checkout, inside the wheel."""
    inside = Path(str(resources.files("mtlsearch"))) / "search_spaces"
    folder = inside if inside.is_dir() else inside.parents[1] / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_plan(name_or_path: str, overrides: Iterable[str] = (), search: Mapping[str, Any] | None = None) -> SearchPlan:
    """Reads and checks a space by name or path.

    Args:
        overrides: `key.sub=value`, laid over the space, and where the value is fixed over the baselines too.
        search: settings that replace those of the file's `search:` section.

    Raises:
        InputError: naming the key; any option of any choice that is no valid run config is found here.
    """
    path = _find(name_or_path)
    document = read_yaml(path)
    unknown = [key for key in document if key not in ("base", "space", "search")]
    if unknown:
        raise InputError(f"{path}: {unknown_name('key', unknown[0], ('base', 'space', 'search'))}")
    for key in ("space", "search"):
        if not isinstance(document.get(key), Mapping):
            raise InputError(f"{path}: the mapping {key!r} is required, got {document.get(key)!r}")
    overrides = list(overrides)
    for override in overrides:
        _refuse_reaching_into_a_choice(document["space"], override)
    changes = apply_overrides(document["space"], overrides)
    base = recipe_tree(document["base"], relative_to=path.parent) if document.get("base") is not None else {}
    settings = validate(SearchSettings, merge(document["search"], search or {}), f"{path.name}: search")
    space = Space(base, changes)
    _check_every_option(space, settings, path.name)
    _check_objectives(space, settings, path.name)
    # an override that is a distribution widens the space; a baseline keeps its own value there
    fixed = [override for override in overrides if not contains_distribution(apply_overrides({}, [override]))]
    baselines = tuple(_baseline(space, name, path, fixed) for name in settings.start_with)
    names = [baseline.name for baseline in baselines]
    if len(set(names)) != len(names):
        raise InputError(
            f"{path.name}: search.start_with: two baselines would both be called one of {', '.join(names)}"
        )
    settings = _sized(space, settings, path.name)
    return SearchPlan(path.stem, space, settings, baselines)


def _find(name_or_path: str) -> Path:
    shipped = shipped_spaces()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(unknown_name("search space", name_or_path, shipped) + " or the path of a .yaml file")
    return path


def _refuse_reaching_into_a_choice(space: Mapping[str, Any], override: str) -> None:
    """`--set optimizer.lr=…` where optimizer is a choice would say nothing of which option is meant."""
    *parents, leaf = override.partition("=")[0].split(".")
    node: Any = space
    for position, key in enumerate(parents):
        node = node.get(key) if isinstance(node, Mapping) else None
        if is_distribution(node) and not (position == len(parents) - 1 and leaf in VARIANT_KEYS):
            where = ".".join(parents[: position + 1])
            raise InputError(
                f"--set {override}: {where} is a choice of this space; set it whole, for example "
                f"--set '{where}={{name: …, {leaf}: …}}'"
            )


def _sized(space: Space, settings: SearchSettings, source: str) -> SearchSettings:
    """The settings with the number of trials that a grid has, and no `grid` where another sampler would draw of it."""
    if isinstance(settings.sampler, GridSampler):
        size = sum(1 for _ in space.grid())
        asked = settings.num_samples if "num_samples" in settings.model_fields_set else size
        return settings.model_copy(update={"num_samples": min(size, asked)})
    for name, parameter in space.parameters():
        if isinstance(parameter, Options) and parameter.name == "grid":
            raise InputError(
                f"{source}: space.{name}: grid is for `search: {{sampler: grid}}`; with {settings.sampler.name} use "
                "choice"
            )
    return settings


def _check_every_option(space: Space, settings: SearchSettings, source: str) -> None:
    for tree in space.probes():
        config = parse_run_config(tree, source)
        if settings.proxy is not None:
            if contains_distribution(settings.proxy.full):
                raise InputError(f"{source}: search.proxy.full: has one size, and so no distributions")
            parse_run_config(merge(config.tree(), settings.proxy.full), f"{source}: search.proxy.full")


def _check_objectives(space: Space, settings: SearchSettings, source: str) -> None:
    config = parse_run_config(next(space.probes()), source)
    problem = find_problem(config.problem)
    costs = [f"cost/{name}" for name in COSTS] if hasattr(problem, "example") else []
    known = [*(f"val/{name}" for name in problem.metrics), *costs]
    for name in settings.objectives:
        if name not in known:
            raise InputError(f"{source}: search.objectives: {unknown_name('metric', name, known)}")
    first, _ = settings.first_objective
    if is_cost(first):
        raise InputError(
            f"{source}: search.objectives: {first} does not change while a model trains, so it cannot be the first, "
            "which decides the best epoch; put a metric (val/…) before it"
        )


def _baseline(space: Space, name: str, space_path: Path, overrides: Iterable[str]) -> Baseline:
    tree = apply_overrides(recipe_tree(name, relative_to=space_path.parent), overrides)
    config = parse_run_config(tree, name)
    try:
        return Baseline(Path(name).stem, config, _point_of(space, config.tree(), name))
    except InputError as error:
        raise InputError(f"start_with: {error}") from None


def _point_of(space: Space, config: Mapping[str, Any], source: str) -> Point:
    return space.encode(config, lambda drawn: parse_run_config(drawn, source).tree(), source)
