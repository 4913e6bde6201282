"""Run configs from files and by name: recipes of the library, `base:` chains, overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mtlsearch.errors import InputError, unknown_name
from mtlsearch.training.config import DEFAULT_PROBLEM, RunConfig
from mtlsearch.training.merge import Tree, merge, unflatten
from mtlsearch.training.problem import find_problem
from mtlsearch.training.schema import validate
from mtlsearch.training.yaml_files import parse_yaml, read_yaml


def recipe_names() -> list[str]:
    """The run configs that the library ships."""
    folder = resources.files("mtlsearch") / "recipes"
    return sorted(item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_tree(name_or_path: str, relative_to: Path | None = None) -> Tree:
    """The tree of a recipe name or a YAML path, with its `base` merged in.

    Records of earlier runs (best.yaml, a trial's record.yaml) are accepted too: their `config` is what counts.
    """
    return _resolve(name_or_path, relative_to, seen=())


def _resolve(name_or_path: str, relative_to: Path | None, seen: tuple[str, ...]) -> Tree:
    if name_or_path in seen:
        raise InputError(f"base: {' -> '.join([*seen, name_or_path])} goes round in a circle")
    tree, folder = _read(name_or_path, relative_to)
    base = tree.pop("base", None)
    if base is None:
        return tree
    return merge(_resolve(base, folder, (*seen, name_or_path)), tree)


def _read(name_or_path: str, relative_to: Path | None) -> tuple[Tree, Path | None]:
    if not isinstance(name_or_path, str):
        raise InputError(f"base: a recipe name or the path of a YAML file is needed, got {name_or_path!r}")
    if name_or_path in recipe_names():
        text = (resources.files("mtlsearch") / "recipes" / f"{name_or_path}.yaml").read_text()
        return parse_yaml(text), None
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(unknown_name("recipe", name_or_path, recipe_names()) + " or the path of a .yaml file")
    if relative_to is not None and not path.is_absolute() and (relative_to / path).exists():
        path = relative_to / path
    tree = read_yaml(path)
    if isinstance(tree.get("config"), dict) and "history" in tree:
        tree = dict(tree["config"])
    return tree, path.parent


def apply_overrides(tree: Mapping[str, Any], overrides: Iterable[str]) -> Tree:
    """`tree` with `key.sub=value` overrides merged in; values are read as YAML.

    Raises:
        InputError: an override without `=` or with a value that is not YAML.
    """
    result = merge(tree, {})
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"--set {override}: write it as key.sub=value, for example --set optimizer.lr=0.01")
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {override}: {' '.join(str(error).split())}") from None
        result = merge(result, unflatten(key.strip(), value))
    return result


def parse_run_config(tree: Mapping[str, Any], source: str) -> RunConfig:
    """The validated run config of `tree`, as the subclass that its problem asks for.

    Raises:
        InputError: one line that names every fault, each with `source`.
    """
    problem = find_problem(str(tree.get("problem", DEFAULT_PROBLEM)))
    config = validate(problem.config_class(tree), tree, source)
    if any(stage.image_size for stage in config.training.stages) and not hasattr(problem, "resize"):
        raise InputError(f"{source}: training.stages: {config.problem} has no resize(), so no stage has an image_size")
    return config


def load_run_config(name_or_path: str, overrides: Iterable[str] = ()) -> RunConfig:
    """A recipe by name, or a YAML file, with overrides, validated."""
    return parse_run_config(apply_overrides(recipe_tree(name_or_path), overrides), name_or_path)
