"""Finding the engine and starting it, once, without waiting.

The caller's thread also serves sockets, so a start is polled: :meth:`Launcher.begin`
starts the process and returns, :meth:`Launcher.poll` says whether it listens yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404 - starting the engine is this file's job
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..install.folder import installed_command
from .connection import Connection, read_connection
from .errors import ClientError

START_SECONDS = 60.0  # for the connection file to appear; virus scanners and cold disks are slow
LOSER_SECONDS = 2.0  # after our process ended, for one that another program started to show itself
ALREADY_RUNNING = "E_ALREADY_RUNNING"  # what the daemon says when another one uses its home
LOG_NAME = "start.log"
LOCK_NAME = "start.lock"

# QGIS sets these for its own Python, Qt and GDAL; a process with other versions of them breaks on them.
_FOREIGN = ("PYTHON", "QT", "QGIS", "GDAL", "PROJ", "LD_", "DYLD_")

# Started here and meant to outlive us; kept so that those that ended are waited for.
_started: list[subprocess.Popen[bytes]] = []


def find_command(command: str | None) -> Path:
    """The command ``rest-backend``.

    Args:
        command: The caller's setting (the plugin's is in QgsSettings), or None.

    Returns:
        The variable ``REST_BACKEND``, else ``command``, else that of the install folder.

    Raises:
        ClientError: ``E_ENGINE_MISSING``. A place that is named and empty is an
            error, never a reason to look further.
    """
    named = os.environ.get("REST_BACKEND", "").strip()
    for value, origin in ((named, "the variable REST_BACKEND"), (command or "", "the setting")):
        if value:
            found = shutil.which(str(Path(value).expanduser()))
            if found is None:
                raise ClientError(
                    "E_ENGINE_MISSING",
                    f"There is no engine at {value}, which {origin} names. Correct or remove it.",
                )
            return Path(found).absolute()
    installed = installed_command()
    if not installed.is_file():
        raise ClientError(
            "E_ENGINE_MISSING",
            "The engine is not installed. Install the package rest-backend, then name its command by “Choose "
            "rest-backend…” in the menu of the toolbar's Engine button, or in the variable REST_BACKEND; it "
            f"was looked for at {installed}.",
        )
    return installed


def engine_environment(home: Path) -> dict[str, str]:
    """Environment for the engine: this process's own without what belongs to QGIS."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    kept["REST_HOME"] = str(home)
    return kept


class Launcher:
    """Starts one daemon for one home.

    Args:
        home: The daemon's home; made when missing, for this user only.
        command: Tells the caller's setting at every start; see :func:`find_command`.
    """

    def __init__(self, home: Path, command: Callable[[], str | None]) -> None:
        self.home = home
        self.command = command
        self._executable = Path()
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0
        self._ended: float | None = None

    def begin(self) -> None:
        """Start the daemon, unless another client is just doing so.

        Raises:
            ClientError: ``E_ENGINE_MISSING``, ``E_ENGINE_START``, and the errors of
                :func:`read_connection`.
        """
        self._executable = find_command(self.command())
        self._deadline = time.monotonic() + START_SECONDS
        self._process, self._ended = None, None
        self._start_unless_another_does()

    def poll(self) -> Connection | None:
        """Look whether the daemon listens.

        Returns:
            Its connection, or None while it is starting.

        Raises:
            ClientError: ``E_ENGINE_START`` with the last lines of its log, and
                the errors of :func:`read_connection`.
        """
        connection = read_connection(self.home)
        if connection is not None:
            return connection
        now = time.monotonic()
        if self._process is None:
            self._start_unless_another_does()  # the other client may have given up
        elif self._process.poll() is not None:
            # It may have ended because another daemon runs already: give that one time to write its file,
            # or, where it is just ending, to make room.
            self._ended = self._ended or now
            if now - self._ended > LOSER_SECONDS:
                if ALREADY_RUNNING not in _last_lines(self.home / "log" / LOG_NAME):
                    raise self._failure(f"it ended with code {self._process.returncode}")
                self._process, self._ended = None, None
        if now > self._deadline:
            raise self._failure(f"it did not answer within {START_SECONDS:.0f} seconds")
        return None

    def end(self) -> None:
        """The start is over, well or not: another client may try."""
        if self._lock is not None:
            self._lock.close()  # which also unlocks it
            self._lock = None

    def _start_unless_another_does(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.home / "log").mkdir(mode=0o700, exist_ok=True)
            self._lock = self._lock or _try_lock(self.home / LOCK_NAME)
            # Before we got the lock another client may have finished a start.
            if self._lock is not None and read_connection(self.home) is None:
                self._process = _spawn(self._executable, self.home)
        except OSError as error:
            raise ClientError(
                "E_ENGINE_START",
                f"The engine could not be started with {self._executable}: {error.strerror or error}.",
            ) from error

    def _failure(self, why: str) -> ClientError:
        lines = _last_lines(self.home / "log" / LOG_NAME)
        told = f" It said: {lines}" if lines else ""
        return ClientError("E_ENGINE_START", f"The engine could not be started: {why}.{told}")


def _spawn(command: Path, home: Path) -> subprocess.Popen[bytes]:
    _started[:] = [process for process in _started if process.poll() is None]
    log = os.open(home / "log" / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(  # nosec B603 - the user's own installation, no shell
            [str(command), "serve"],
            cwd=home,
            env=engine_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            # A session of its own: closing QGIS, or Ctrl+C in its terminal, must not end it.
            start_new_session=sys.platform != "win32",
            creationflags=0x00000208 if sys.platform == "win32" else 0,  # DETACHED, NEW_PROCESS_GROUP
        )
    finally:
        os.close(log)
    _started.append(process)
    return process


def _try_lock(path: Path) -> IO[bytes] | None:
    """Lock a file for this process; None when another one holds it. Closing unlocks."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _last_lines(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2000))
            text = file.read(2000).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-5:])[-600:]
