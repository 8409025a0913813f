"""Strict JSON, and the part of JSON Schema that describes our messages.

QGIS's Python has no msgspec and no jsonschema, so what the daemon sends is
checked here against ``messages.schema.json``, which the backend generates from
its message definitions. The subset is the one msgspec emits: ``type``, ``enum``,
``const``, ``anyOf``, ``$ref``, ``properties``, ``required``,
``additionalProperties``, ``items``, ``prefixItems``, lengths, bounds, ``pattern``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

SCHEMA_PATH = Path(__file__).with_name("messages.schema.json")


class SchemaError(ValueError):
    """Bytes that are not strict JSON, or JSON that is not one of our messages."""


class UnknownTypeError(SchemaError):
    """A well-formed message of a type this client does not know; newer daemons may send some."""


def parse_json(data: bytes, limit: int) -> Any:
    """Parse JSON and refuse what the standard library lets through.

    Args:
        data: UTF-8 bytes.
        limit: Largest size accepted, in bytes; checked before anything is parsed.

    Returns:
        The parsed value.

    Raises:
        SchemaError: Too large, not UTF-8, not JSON, nested too deep, a duplicate
            key, NaN or a number that is infinite.
    """
    if len(data) > limit:
        raise SchemaError(f"{len(data)} bytes, at most {limit} are allowed")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except SchemaError:
        raise
    except RecursionError as error:
        raise SchemaError("nested too deep") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise SchemaError(str(error)) from error


class MessageSchema:
    """The messages of one protocol, found by their ``type`` field.

    Args:
        document: The generated schema: ``requests`` and ``answers`` name the
            messages by their type, ``$defs`` holds them.

    Raises:
        SchemaError: The document uses a keyword this validator does not know,
            so that a new one is never silently not checked.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._definitions: dict[str, Any] = document["$defs"]
        self._requests: dict[str, Any] = document["requests"]
        self._answers: dict[str, Any] = document["answers"]
        for name, definition in self._definitions.items():
            _refuse_unknown_keywords(definition, name)

    def check_request(self, message: Any) -> dict[str, Any]:
        """Check a message to the daemon; see :meth:`check_answer`."""
        return self._check_message(message, self._requests)

    def check_answer(self, message: Any) -> dict[str, Any]:
        """Check a message of the daemon.

        Args:
            message: A parsed header.

        Returns:
            The same message, now known to be a dict that fits its definition.

        Raises:
            UnknownTypeError: Its ``type`` is none of ours.
            SchemaError: It does not fit, with the field's path in the text.
        """
        return self._check_message(message, self._answers)

    def _check_message(self, message: Any, known: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise SchemaError("not an object with a type")
        definition = known.get(message["type"])
        if definition is None:
            raise UnknownTypeError(f"unknown message type {message['type'][:64]!r}")
        self._check(message, definition, message["type"])
        return message

    def _check(self, value: Any, schema: Any, where: str) -> None:
        if schema is True:
            return
        if schema is False:
            raise SchemaError(f"{where}: nothing is allowed here")
        if "$ref" in schema:
            self._check(value, self._definitions[schema["$ref"].rpartition("/")[2]], where)
        if "anyOf" in schema:
            self._check_any(value, schema["anyOf"], where)
        if "type" in schema and not _has_type(value, schema["type"]):
            raise SchemaError(f"{where}: expected {schema['type']}, got {type(value).__name__}")
        if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
            raise SchemaError(f"{where}: not one of {schema['enum']}")
        if "const" in schema and not _same(value, schema["const"]):
            raise SchemaError(f"{where}: not {schema['const']!r}")
        if isinstance(value, str):
            _check_text(value, schema, where)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_number(value, schema, where)
        elif isinstance(value, list):
            self._check_list(value, schema, where)
        elif isinstance(value, dict):
            self._check_object(value, schema, where)

    def _check_any(self, value: Any, choices: list[Any], where: str) -> None:
        problems = []
        for choice in choices:
            try:
                self._check(value, choice, where)
                return
            except SchemaError as error:
                problems.append(str(error))
        raise SchemaError(problems[0] if len(problems) == 1 else f"{where}: fits no allowed form")

    def _check_list(self, value: list[Any], schema: dict[str, Any], where: str) -> None:
        _check_length(len(value), schema.get("minItems"), schema.get("maxItems"), where)
        first = schema.get("prefixItems", [])
        rest = schema.get("items", True)
        for index, item in enumerate(value):
            self._check(item, first[index] if index < len(first) else rest, f"{where}[{index}]")

    def _check_object(self, value: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        _check_length(len(value), schema.get("minProperties"), schema.get("maxProperties"), where)
        for name in schema.get("required", []):
            if name not in value:
                raise SchemaError(f"{where}: the field {name} is missing")
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            self._check(item, known.get(name, others), f"{where}.{name[:64]}")


@lru_cache(maxsize=1)
def message_schema() -> MessageSchema:
    """The schema beside this file: the protocol this client speaks."""
    with SCHEMA_PATH.open("rb") as file:
        return MessageSchema(json.load(file))


_KEYWORDS = frozenset(
    (
        *("$ref", "anyOf", "type", "enum", "const", "pattern", "title", "description", "default", "examples"),
        *("properties", "required", "additionalProperties", "items", "prefixItems"),
        *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    )
)

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}


def _refuse_unknown_keywords(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        return
    unknown = set(schema) - _KEYWORDS
    if unknown:
        raise SchemaError(f"{where}: unknown schema keywords {sorted(unknown)}")
    inner = list(schema.get("properties", {}).values())
    inner += schema.get("anyOf", []) + schema.get("prefixItems", [])
    inner += [schema.get("items"), schema.get("additionalProperties")]
    for item in inner:
        _refuse_unknown_keywords(item, where)


def _has_type(value: Any, names: Any) -> bool:
    return any(_TYPES[name](value) for name in ([names] if isinstance(names, str) else names))


def _same(value: Any, allowed: Any) -> bool:
    # True == 1 in Python, never in JSON.
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _check_text(value: str, schema: dict[str, Any], where: str) -> None:
    _check_length(len(value), schema.get("minLength"), schema.get("maxLength"), where)
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        raise SchemaError(f"{where}: does not match {schema['pattern']}")


def _check_number(value: float, schema: dict[str, Any], where: str) -> None:
    if "minimum" in schema and value < schema["minimum"]:
        raise SchemaError(f"{where}: less than {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        raise SchemaError(f"{where}: more than {schema['maximum']}")
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        raise SchemaError(f"{where}: not more than {schema['exclusiveMinimum']}")
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        raise SchemaError(f"{where}: not less than {schema['exclusiveMaximum']}")


def _check_length(length: int, least: Any, most: Any, where: str) -> None:
    if least is not None and length < least:
        raise SchemaError(f"{where}: shorter than {least}")
    if most is not None and length > most:
        raise SchemaError(f"{where}: longer than {most}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise SchemaError("a key appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise SchemaError(f"{name} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise SchemaError("a number is out of range")
    return value
