"""URIs for screens and messages: without passwords, tokens and keys."""

from __future__ import annotations

import re
from urllib.parse import unquote

#: in a query all other values may be secret: each file system has names of its own
_OPEN = ("endpoint_override", "scheme", "region", "allow_bucket_creation", "allow_bucket_deletion")
#: schemes where a name before @ is no secret: a container, a user of HDFS
_NAMES = ("abfs", "abfss", "hdfs", "gs", "gcs")
#: shorter pieces of a secret are found in any text
_PIECE = 3
_HIDDEN = "***"


def masked(uri: str) -> str:
    """`uri` with *** where it has, or may have, a secret."""
    return _split(uri)[0]


def without_secrets(text: str, uri: str) -> str:
    """`text`, which may quote `uri` or parts of it, with *** for its secrets."""
    shown, secrets = _split(uri)
    text = text.replace(uri, shown)
    for secret in sorted({form for one in secrets for form in (one, unquote(one))}, key=len, reverse=True):
        for piece in (secret, *re.split(r"[/@:?&#]", secret)):  # what parsers take a bad URI apart at
            if len(piece) >= _PIECE:
                text = text.replace(piece, _HIDDEN)
    return text


def _split(uri: str) -> tuple[str, list[str]]:
    """The URI as it is shown, and what is hidden of it."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri, []
    address, question, query = rest.partition("?")
    secrets: list[str] = []

    def hide(value: str) -> str:
        secrets.append(value)
        return _HIDDEN if value else ""

    authority = address.partition("/")[0]
    if "@" in address and ("@" in authority or ":" in authority):
        user, _, place = address.rpartition("@")  # a secret may hold / and @ itself
        name, colon, password = user.partition(":")
        if not (scheme in _NAMES and not colon):
            user = hide(user) if scheme.startswith("http") or not colon else f"{name}:{hide(password)}"
        address = f"{user}@{place}"
    elif re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", authority) is None:  # no port: a secret that ends with a ?
        name, _, password = address.partition(":")
        address = f"{name}:{hide(password)}"
    pairs = []
    for pair in query.split("&") if question else []:
        name, equals, value = pair.partition("=")
        if name in _OPEN and "@" not in value:
            pairs.append(pair)
        else:
            pairs.append(f"{name}={hide(value)}" if equals else hide(name))
    return f"{scheme}://{address}{question}{'&'.join(pairs)}", secrets
