"""Strict configuration sections, and validation errors written for the person who wrote the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mtlsearch.errors import InputError, unknown_name


class Section(BaseModel):
    """A part of a configuration: immutable, and no key is accepted that it does not declare."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    message = unknown_name("key", key, cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": str(key)})
        return data


S = TypeVar("S", bound=BaseModel)


def validate(section: type[S], tree: Mapping[str, Any], source: str) -> S:
    """`tree` as a validated `section`.

    Raises:
        InputError: one line for each fault: the dotted key, what was given, what is allowed.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(dict(fault), tree) for fault in error.errors(include_url=False)]
        raise InputError("; ".join(f"{source}: {fault}" for fault in faults)) from None


def _describe(fault: dict[str, Any], tree: Mapping[str, Any]) -> str:
    key = _dotted(fault["loc"], tree)
    context = fault.get("ctx", {})
    given = fault.get("input")
    if fault["type"] == "missing":
        message = "is required and was not given"
    elif fault["type"] == "value_error":
        message = str(context["error"])
    elif fault["type"] == "unknown_key":
        return f"{key}.{context['key']}: {context['message']}" if key else str(context["message"])
    elif fault["type"] in ("literal_error", "union_tag_invalid"):
        expected = context.get("expected", context.get("expected_tags", ""))
        allowed = re.findall(r"'([^']*)'", expected)
        if fault["type"] == "union_tag_invalid":
            discriminator = context["discriminator"].strip("'")
            key, given = f"{key}.{discriminator}", context["tag"]
        near = difflib.get_close_matches(str(given), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"{given!r} is not one of {', '.join(allowed) or expected}{hint}"
    elif fault["type"] == "union_tag_not_found":
        message = f"needs the key {context['discriminator']}, got {given!r}"
    else:
        message = f"{fault['msg'][0].lower()}{fault['msg'][1:]}, got {given!r}"
    return f"{key}: {message}" if key else message


def _dotted(location: tuple[int | str, ...], tree: Mapping[str, Any]) -> str:
    """The key as the user wrote it: pydantic puts the variant's name of a tagged union into the location."""
    words: list[str] = []
    node: Any = tree
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(node, Mapping) and part not in node and not last and part in node.values():
            continue
        if isinstance(node, Mapping) and last and part not in node and part in node.values():
            continue
        words.append(str(part))
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            node = None
    return ".".join(words)
