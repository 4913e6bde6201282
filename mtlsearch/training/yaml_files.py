"""Reading and writing YAML. Numbers such as 1e-5 are numbers, and a file is never left half written."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mtlsearch.errors import InputError


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-5 is a string; people who write learning rates mean YAML 1.2."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A key that stands twice would silently lose its first value."""
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.yaml_implicit_resolvers = {
    letter: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:float"]
    for letter, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


# libyaml's where PyYAML was built with it: a trial's record takes a tenth of the time
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _TextLoader(_Loader):
    """Every value as it is written, numbers too."""


_TextLoader.yaml_implicit_resolvers = {}


def parse_yaml(text: str, as_text: bool = False) -> Any:
    """as_text: leave every value the string that stands there (4.40 is "4.40"). Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_TextLoader if as_text else _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        InputError: the file is missing, is not YAML, or holds something else than a mapping.
    """
    try:
        tree = parse_yaml(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no file {path} (working folder: {Path.cwd()})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold a mapping of keys to values, got {type(tree).__name__}")
    return tree


def dump_yaml(tree: Mapping[str, Any]) -> str:
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def write_text(path: Path, text: str) -> None:
    """Writes `text` whole or not at all: to a temporary name beside `path`, flushed, then renamed over it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
