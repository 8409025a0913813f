"""A message as ZeroMQ frames: ``REST1``, a JSON header, for rows one payload.

The numbers are those of the daemon's message definitions for protocol 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .schema import SchemaError, message_schema, parse_json

PROTOCOL = 1
MAGIC = b"REST1"
HEADER_LIMIT = 64 * 1024  # bytes
PAYLOAD_LIMIT = 1024 * 1024  # bytes, before and after compression
CREDIT_LIMIT = 32  # row blocks in flight per attachment


def encode(message: dict[str, Any]) -> list[bytes]:
    """Frames of a message to the daemon.

    Args:
        message: Header fields with ``type``.

    Returns:
        Two frames.

    Raises:
        SchemaError: The message does not fit the protocol, or is too long.
    """
    checked = message_schema().check_request(message)
    try:
        text = json.dumps(checked, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        header = text.encode("utf-8")
    except ValueError as error:  # a path with a lone surrogate, NaN
        raise SchemaError(str(error)) from error
    if len(header) > HEADER_LIMIT:
        raise SchemaError(f"the message has {len(header)} bytes, at most {HEADER_LIMIT} are allowed")
    return [MAGIC, header]


def decode(frames: Sequence[bytes]) -> tuple[dict[str, Any], bytes | None]:
    """The message in the frames received.

    Args:
        frames: All frames of one ZeroMQ message.

    Returns:
        The checked header and the payload; only ``rows`` has one.

    Raises:
        UnknownTypeError: Well-formed, of an unknown type: to be ignored.
        SchemaError: Anything else that is wrong with it.
    """
    if not 2 <= len(frames) <= 3 or frames[0] != MAGIC:
        raise SchemaError("not a message of this protocol")
    header = message_schema().check_answer(parse_json(frames[1], HEADER_LIMIT))
    payload = frames[2] if len(frames) == 3 else None
    if (payload is not None) != (header["type"] == "rows"):
        raise SchemaError("rows, and only rows, carry a payload")
    if payload is not None and len(payload) > PAYLOAD_LIMIT:
        raise SchemaError(f"a payload of {len(payload)} bytes, at most {PAYLOAD_LIMIT} are allowed")
    return header, payload
