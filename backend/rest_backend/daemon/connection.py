"""The connection file: what a client of the same user needs to reach the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from rest_backend.daemon.files import write_private


class Connection(msgspec.Struct, kw_only=True):
    """Content of ``connection.json``; keys are Z85 text.

    ``pid`` and ``pid_start`` (seconds since the epoch, as psutil tells it) name
    the process: when either differs from what runs, the file is stale.
    """

    format: Literal[1] = 1
    pid: int
    pid_start: float
    boot: str
    version: str
    protocol: int
    control: str
    data: str
    server_public: str
    client_public: str
    client_secret: str


def write_connection(path: Path, connection: Connection) -> None:
    """Write the file, mode 0600, complete or not at all."""
    write_private(path, msgspec.json.encode(connection))


def read_connection(path: Path) -> Connection | None:
    """The file's content, or None when it is missing or not such a file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def remove_connection(path: Path, boot: str) -> None:
    """Remove the file if it is that of this start of the daemon."""
    connection = read_connection(path)
    if connection is not None and connection.boot == boot:
        path.unlink(missing_ok=True)
