"""Frames on the wire: every message is encoded and decoded here, within fixed limits.

Decoding is total: whatever bytes arrive, the result is a message or a
:class:`WireError`, never another exception, and nothing is allocated beyond the
limits of :mod:`rest_backend.wire.messages`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import msgspec

from rest_backend.errors import InputError
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    MAGIC,
    PAYLOAD_LIMIT,
    Answer,
    Message,
    Request,
    Rows,
)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


class WireError(InputError):
    """A message that does not follow the protocol.

    Codes: ``E_FRAMES`` (number or magic of frames), ``E_HEADER_SIZE``,
    ``E_PAYLOAD_SIZE``, ``E_HEADER`` (not a JSON object with a known shape),
    ``E_UNKNOWN_TYPE``, ``E_PAYLOAD`` (crc, codec or length of rows).

    Attributes:
        request: The request identifier, where the header still shows a valid one;
            it lets the receiver answer instead of dropping the message.
    """

    def __init__(self, code: str, message: str, request: str = "") -> None:
        super().__init__(code, message)
        self.request = request


class _Envelope(msgspec.Struct):
    """The two fields every header has, read when the whole header is refused."""

    type: str = ""
    request: str = ""


_Decoded = TypeVar("_Decoded")

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_envelopes = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()
_known_types = frozenset(
    kind.__struct_config__.tag for union in (Request, Answer) for kind in get_args(union)
)


def encode(message: Message, payload: bytes | None = None) -> list[bytes]:
    """Frames of a message.

    Args:
        message: Any struct of :mod:`rest_backend.wire.messages`.
        payload: Binary frame; exactly ``rows`` has one.

    Raises:
        WireError: The header or the payload exceeds its limit.
    """
    header = _encoder.encode(message)
    if len(header) > HEADER_LIMIT:
        raise WireError("E_HEADER_SIZE", f"A header of {len(header)} bytes is over {HEADER_LIMIT}.")
    if isinstance(message, Rows) != (payload is not None):
        raise WireError("E_FRAMES", "Exactly the message 'rows' carries a payload.")
    if payload is None:
        return [MAGIC, header]
    if len(payload) > PAYLOAD_LIMIT:
        raise WireError(
            "E_PAYLOAD_SIZE", f"A payload of {len(payload)} bytes is over the limit of {PAYLOAD_LIMIT}."
        )
    return [MAGIC, header, payload]


def decode_request(frames: Sequence[bytes]) -> Request:
    """Message of a client from its frames (without routing id).

    Raises:
        WireError: Anything that is not a request of this protocol.
    """
    if len(frames) != 2:
        raise WireError("E_FRAMES", f"A request has 2 frames, not {len(frames)}.")
    return _decode(_requests, _header(frames))


def decode_answer(frames: Sequence[bytes]) -> tuple[Answer, bytes]:
    """Message of the daemon and its payload (empty without one).

    Raises:
        WireError: Anything that is not an answer or event of this protocol.
    """
    if len(frames) not in (2, 3):
        raise WireError("E_FRAMES", f"A message has 2 or 3 frames, not {len(frames)}.")
    payload = frames[2] if len(frames) == 3 else None
    if payload is not None and len(payload) > PAYLOAD_LIMIT:
        raise WireError(
            "E_PAYLOAD_SIZE", f"A payload of {len(payload)} bytes is over the limit of {PAYLOAD_LIMIT}."
        )
    message = _decode(_answers, _header(frames))
    if isinstance(message, Rows) != (payload is not None):
        raise WireError("E_FRAMES", "Exactly the message 'rows' carries a payload.")
    return message, payload or b""


def pack_rows(values: bytes) -> tuple[Literal["raw", "zlib"], bytes]:
    """Codec and payload of class rows: zlib level 1 where that is smaller, else raw.

    Args:
        values: ``width * height`` bytes, at most ``PAYLOAD_LIMIT``.

    Returns:
        ``("zlib" | "raw", payload)``; the payload is never longer than ``values``.
    """
    packed = zlib.compress(values, 1)
    return ("zlib", packed) if len(packed) < len(values) else ("raw", values)


def checksum(payload: bytes) -> int:
    """The ``crc32`` of a ``rows`` message."""
    return zlib.crc32(payload)


def unpack_rows(rows: Rows, payload: bytes) -> bytes:
    """Class rows of a ``rows`` message, checked against its window and crc.

    Never expands more than the window holds, nor more than ``PAYLOAD_LIMIT``.

    Raises:
        WireError: ``E_PAYLOAD``: crc, length or compressed stream is wrong.
    """
    size = rows.window[2] * rows.window[3]
    if size > PAYLOAD_LIMIT:
        raise WireError("E_PAYLOAD", f"A block of {size} pixels is over the limit of {PAYLOAD_LIMIT}.")
    if checksum(payload) != rows.crc32:
        raise WireError("E_PAYLOAD", "The block's checksum is wrong.")
    if rows.codec == "raw":
        values = payload
    else:
        stream = zlib.decompressobj()
        try:
            # One byte more than allowed is enough to see that it is too long.
            values = stream.decompress(payload, size + 1)
        except zlib.error as error:
            raise WireError("E_PAYLOAD", f"The block cannot be decompressed: {error}.") from error
    if len(values) != size:
        raise WireError("E_PAYLOAD", f"The block's length is not the {size} bytes its window says.")
    return values


def _header(frames: Sequence[bytes]) -> bytes:
    if frames[0] != MAGIC:
        raise WireError("E_FRAMES", "The first frame is not REST1.")
    if len(frames[1]) > HEADER_LIMIT:
        raise WireError("E_HEADER_SIZE", f"A header is at most {HEADER_LIMIT} bytes.")
    return frames[1]


def _decode(decoder: msgspec.json.Decoder[_Decoded], header: bytes) -> _Decoded:
    try:
        return decoder.decode(header)
    # msgspec raises plain UnicodeDecodeError on bad UTF-8 and RecursionError on deep nesting.
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        refusal = error
    kind, request = _envelope(header)
    if kind and kind not in _known_types:
        raise WireError("E_UNKNOWN_TYPE", f"There is no message of type {kind[:64]!r}.", request)
    raise WireError("E_HEADER", f"The message is not valid: {str(refusal)[:200]}", request)


def _envelope(header: bytes) -> tuple[str, str]:
    try:
        envelope = _envelopes.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return "", ""
    return envelope.type, envelope.request if _REQUEST_ID.fullmatch(envelope.request) else ""
