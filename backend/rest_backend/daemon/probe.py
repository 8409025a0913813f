"""Looking at a daemon from outside, for ``rest-backend doctor``: a question, and what its journal names."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import TypeVar

import zmq

from rest_backend import __version__
from rest_backend.daemon.connection import Connection
from rest_backend.errors import ResourceError
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    PROTOCOL,
    DaemonStatus,
    Error,
    Goodbye,
    Hello,
    Request,
    Status,
    Welcome,
)

PATIENCE = 5.0  # seconds
_Kind = TypeVar("_Kind", Welcome, DaemonStatus)
_PATHS = ("scene", "output", "aoi", "confidence", "probabilities", "model")  # a model may be an id


def ask_status(connection: Connection, seconds: float) -> DaemonStatus:
    """Greet a daemon as a client of the same user and ask how it is.

    Args:
        connection: What its connection file says.
        seconds: How long all of it may take.

    Raises:
        ResourceError: ``E_ENGINE_SILENT``: it does not answer, or not with what was asked;
            ``E_ENGINE_REFUSED``: it does not speak with us, in its own words.
    """
    until = time.monotonic() + seconds
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, HEADER_LIMIT + 256)
        socket.setsockopt(zmq.CURVE_SERVERKEY, connection.server_public.encode("ascii"))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, connection.client_public.encode("ascii"))
        socket.setsockopt(zmq.CURVE_SECRETKEY, connection.client_secret.encode("ascii"))
        socket.connect(connection.control)
        hello = Hello(
            request="hello", protocols=(PROTOCOL, PROTOCOL), client="rest-backend doctor", version=__version__
        )
        _ask(socket, hello, Welcome, until)
        return _ask(socket, Status(request="status"), DaemonStatus, until)
    except (zmq.ZMQError, UnicodeEncodeError) as error:
        raise _silent(connection, str(error)) from error
    except TimeoutError as error:
        raise _silent(connection, f"no answer within {seconds:.0f} seconds") from error
    finally:
        context.destroy(linger=0)


def named_paths(journal: Path) -> set[str]:
    """Paths that the jobs of a journal name, so that a report can leave them out.

    Args:
        journal: The SQLite file; it is only read, also while a daemon uses it.

    Returns:
        Scenes, outputs, areas and model cards; none where the file cannot be read.
    """
    if not journal.is_file():
        return set()
    paths: set[str] = set()
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        with contextlib.closing(database):
            for (job,) in database.execute("SELECT job FROM jobs"):
                with contextlib.suppress(ValueError):
                    fields = json.loads(job)
                    texts = {str(fields.get(name) or "") for name in _PATHS}
                    paths |= {text for text in texts if "/" in text or "\\" in text}
    return paths


def _ask(socket: zmq.Socket[bytes], request: Request, kind: type[_Kind], until: float) -> _Kind:
    """Send a request and wait for its answer; events and what makes no sense are passed over."""
    socket.send_multipart(frames.encode(request))
    while socket.poll(max(0, int((until - time.monotonic()) * 1000))):
        try:
            answer, _ = frames.decode_answer(socket.recv_multipart())
        except frames.WireError:
            continue
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Goodbye | Error):
            raise ResourceError("E_ENGINE_REFUSED", f"The engine says {answer.code}: {answer.message}")
    raise TimeoutError


def _silent(connection: Connection, why: str) -> ResourceError:
    return ResourceError(
        "E_ENGINE_SILENT",
        f"The engine (process {connection.pid}) runs but does not answer: {why}. End that process; the "
        "engine starts again when it is needed.",
    )
