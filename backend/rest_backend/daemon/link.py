"""The private link between broker and worker: length-prefixed JSON over two pipes.

The worker's standard input and output are the pipes; the worker moves them to
other descriptors before it imports anything, so that no library can write into
them. The end of a pipe is the news that the other side is gone.
"""

from __future__ import annotations

import struct
import threading
from typing import IO, Any, Literal

import msgspec

from rest_backend.daemon.spool import Block
from rest_backend.wire.messages import SegmentJob, Window

MESSAGE_LIMIT = 8 * 1024 * 1024  # bytes
_LENGTH = struct.Struct("<I")


class LinkMessage(msgspec.Struct, kw_only=True, tag=True):
    """Base of the private messages."""


# --- broker to worker -------------------------------------------------------------------


class Run(LinkMessage):
    """Compute a job; ``offsets`` says how many bytes of each product are journaled already."""

    id: str
    job: SegmentJob
    device: str
    spool: str
    next_seq: int
    offsets: dict[str, int]
    window: Window | None


class Ask(LinkMessage):
    """Plan a job."""

    id: str
    job: SegmentJob


class Stop(LinkMessage):
    """End the job, or the plan, if it is the one that runs."""

    id: str


# --- worker to broker -------------------------------------------------------------------


class ComputeDevice(msgspec.Struct, kw_only=True):
    """A device this computer can compute on."""

    id: str
    name: str
    memory_bytes: int = 0


class Ready(LinkMessage):
    """The worker has loaded its libraries."""

    devices: list[ComputeDevice]


class Begun(LinkMessage):
    """The job's window is known and its output is open."""

    id: str
    window: Window
    temporary_paths: list[str]


class Advanced(LinkMessage):
    """Progress of the job, as the wire's ``progress``."""

    id: str
    stage: Literal["queued", "loading", "statistics", "planning", "sweep", "writing"]
    rows_done: int
    rows: int
    rows_per_second: float
    eta_seconds: float | None
    device: str
    memory_bytes: int
    note: str


class Spooled(LinkMessage):
    """Row blocks that are in the spool now."""

    id: str
    blocks: list[Block]


class Finished(LinkMessage):
    """The output is in place."""

    id: str
    summary: dict[str, Any]


class Answered(LinkMessage):
    """The plan that was asked for, small enough for a header."""

    id: str
    plan: dict[str, Any]


class Broken(LinkMessage):
    """The job or plan ended without a result."""

    id: str
    code: str
    message: str


ToWorker = Run | Ask | Stop
FromWorker = Ready | Begun | Advanced | Spooled | Finished | Answered | Broken

_encoder = msgspec.json.Encoder()


class LinkWriter:
    """Writes whole messages; safe from several threads."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, message: LinkMessage) -> None:
        """Write a message.

        Raises:
            OSError: The other side is gone.
        """
        body = _encoder.encode(message)
        with self._lock:
            self._pipe.write(_LENGTH.pack(len(body)) + body)
            self._pipe.flush()


def read_body(pipe: IO[bytes]) -> bytes | None:
    """Bytes of the next message, None when the other side is gone or broke off."""
    prefix = pipe.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    if length > MESSAGE_LIMIT:
        return None
    body = pipe.read(length)
    return body if len(body) == length else None


to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
