"""Writes ``docs/protocol.md``: the rules from a template, every message from ``messages``.

``python -m rest_backend.wire.document`` writes the page of the checkout; ``--check`` only
compares and exits with 1 when they differ. What a message is for is its docstring, what a
field holds is the comment behind it or above it, types and bounds are its annotation.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from rest_backend.wire import messages
from rest_backend.wire.generated import write_or_check

PAGE_PATH = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"
TEMPLATE_PATH = Path(__file__).with_name("protocol.in.md")

_NAMED = (
    (messages.Identifier, "identifier"),
    (messages.ShortText, "text"),
    (messages.LongText, "long text"),
    (messages.Count, "integer"),
    (messages.Seconds, "number"),
    (messages.Window, "window"),
)
_FIELD = re.compile(r" {4}(\w+): [^#]*(?:# (.*))?")
_COMMENT = re.compile(r" {4}# (.*)")


def page() -> str:
    """The page as the file holds it, newline at the end.

    Raises:
        LookupError: A field has no explanation.
    """
    requests, answers = get_args(messages.Request), get_args(messages.Answer)
    values = {
        "PROTOCOL": str(messages.PROTOCOL),
        "HEADER": str(messages.HEADER_LIMIT // 1024),
        "PAYLOAD": str(messages.PAYLOAD_LIMIT // 1024**2),
        "CREDIT": str(messages.CREDIT_LIMIT),
        "REQUESTS": _sections(requests),
        "ANSWERS": _sections(answers),
        "PARTS": _sections(_parts([*requests, *answers])),
    }
    template = TEMPLATE_PATH.read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: values[found.group(1)], template)


def explanations(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What each field of a message holds, as its own source says.

    Args:
        kind: A message or a part of one, without the fields of its base.

    Raises:
        LookupError: A field has no comment.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    for line in textwrap.dedent(inspect.getsource(kind)).splitlines():
        comment, named = _COMMENT.fullmatch(line), _FIELD.fullmatch(line)
        if comment:
            above.append(comment.group(1))
            continue
        if named:
            found[named.group(1)] = named.group(2) or " ".join(above)
        above = []
    for name in kind.__annotations__:
        if not found.get(name):
            raise LookupError(f"{kind.__name__}.{name} has no comment that explains it")
    return found


def _sections(kinds: Any) -> str:
    return "\n\n".join(_section(kind) for kind in kinds)


def _section(kind: type[msgspec.Struct]) -> str:
    text = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
    parts = [f"### {_title(kind)}", text]
    told = explanations(kind)
    hints = get_type_hints(kind, include_extras=True)
    rows = [
        f"| `{field.name}` | {_type(hints[field.name])} | {_default(field)} | {told[field.name]} |"
        for field in msgspec.structs.fields(kind)
        if field.name in told
    ]
    if rows:
        parts.append("\n".join(("| field | type | default | meaning |", "|---|---|---|---|", *rows)))
    return "\n\n".join(parts)


def _title(kind: type[msgspec.Struct]) -> str:
    """The ``type`` of a message, the name of a part."""
    tag = kind.__struct_config__.tag
    return f"`{tag}`" if tag else kind.__name__


def _type(annotation: Any) -> str:
    """An annotation in the words of the page's table of types."""
    for known, name in _NAMED:
        if annotation == known:
            return name
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0]) + _bounds(arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is list:
        return f"list: {_type(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} times {_type(arguments[0])}"
    if origin is dict:
        return "object"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        title = _title(annotation)
        return f"[{title}](#{title.strip('`').lower()})"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}[annotation]


def _bounds(metas: Any) -> str:
    """Bounds that no named type has."""
    told = []
    for meta in metas:
        if meta.ge is not None and meta.le is not None:
            told.append(f" from {meta.ge} to {meta.le}")
        if meta.max_length is not None:
            told.append(f", at most {meta.max_length:,}")
    return "".join(told)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{msgspec.json.encode(field.default_factory()).decode()}`"
    if field.default is msgspec.NODEFAULT:
        return ""
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _parts(kinds: Any) -> list[type[msgspec.Struct]]:
    """Structs inside messages that are no messages, in the order they are met."""
    parts: list[type[msgspec.Struct]] = []
    for kind in kinds:
        for hint in get_type_hints(kind, include_extras=True).values():
            for inner in _inner(hint):
                if inner not in parts and not issubclass(inner, messages.Message):
                    parts.append(inner)
    return parts


def _inner(annotation: Any) -> list[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _inner(argument)]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return write_or_check("rest_backend.wire.document", PAGE_PATH, page(), arguments)


if __name__ == "__main__":
    sys.exit(main())
