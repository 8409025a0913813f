"""``rest-backend serve``: one daemon in the foreground, from lock to clean end."""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from rest_backend import __version__
from rest_backend.daemon.broker import Broker
from rest_backend.daemon.connection import Connection, remove_connection, write_connection
from rest_backend.daemon.home import Home
from rest_backend.daemon.home import home as default_home
from rest_backend.daemon.lock import DaemonLock
from rest_backend.errors import RestError
from rest_backend.wire.messages import PROTOCOL

_log = logging.getLogger("rest_backend.daemon.serve")  # also when run as a module

LOG_BYTES = 5 * 1024 * 1024
LOG_FILES = 4


def serve(home: Path, idle_minutes: float = 30) -> int:
    """Run the daemon until a client, a signal or idleness ends it.

    Args:
        home: Folder of its state; made where missing, closed to other users.
        idle_minutes: It ends after this long without jobs and clients.

    Returns:
        Exit code: 0, or that of the error it told on stderr (2 when another
        daemon uses the folder, ``E_ALREADY_RUNNING``).
    """
    place = Home(home.absolute())
    try:
        place.prepare()
        with DaemonLock(place.lock), _logging(place.log / "daemon.log"):
            return _serve(place, idle_minutes)
    except RestError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return error.exit_code


def _serve(place: Home, idle_minutes: float) -> int:
    try:
        with Broker(place, idle_minutes * 60) as broker, _signals(broker):
            write_connection(place.connection, _connection(broker))
            _log.info("rest-backend %s serves, boot %s", __version__, broker.boot)
            try:
                broker.run()
            finally:
                remove_connection(place.connection, broker.boot)
    except RestError as error:
        _log.error("%s: %s", error.code, error.message)
        raise
    except Exception:
        _log.exception("the daemon ends by a mistake of its own")
        raise
    _log.info("the daemon ended in order")
    return 0


def _connection(broker: Broker) -> Connection:
    process = psutil.Process()
    return Connection(
        pid=process.pid,
        pid_start=process.create_time(),
        boot=broker.boot,
        version=__version__,
        protocol=PROTOCOL,
        control=broker.control_address,
        data=broker.data_address,
        server_public=broker.server_keys.public,
        client_public=broker.client_keys.public,
        client_secret=broker.client_keys.secret,
    )


@contextmanager
def _logging(path: Path) -> Iterator[None]:
    """Log of this package to a file that only the owner reads, in turns of 5 MiB."""
    path.touch(mode=0o600)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("rest_backend")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _signals(broker: Broker) -> Iterator[None]:
    """SIGTERM and SIGINT end the daemon in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        broker.stop()

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Command line of ``python -m rest_backend.daemon.serve``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rest_backend.daemon.serve", description=serve.__doc__)
    parser.add_argument("--home", type=Path, default=None, help="folder of the daemon's state")
    parser.add_argument("--idle-minutes", type=float, default=30.0)
    options = parser.parse_args(arguments)
    return serve(options.home or default_home(), options.idle_minutes)


if __name__ == "__main__":
    sys.exit(main())
