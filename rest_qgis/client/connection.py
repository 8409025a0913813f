"""The connection file: where the daemon listens, and whether it is still the one that wrote it.

A daemon leaves ``connection.json`` in its home. The file holds a secret key, so
it is used only when it belongs to this user and nobody else can read it; and it
names the process by number *and* start time, because numbers are used again.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import subprocess  # nosec B404 - one fixed command, for macOS
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ClientError
from .frames import PROTOCOL
from .schema import SchemaError, parse_json

FILE_NAME = "connection.json"
LOCK_NAME = "daemon.lock"  # the daemon keeps it locked while it runs
FORMAT = 1
SIZE_LIMIT = 16 * 1024  # bytes
START_TOLERANCE = 2.0  # seconds: `ps` tells whole ones, and clocks are read at different moments

_ENDPOINT = re.compile(r"tcp://127\.0\.0\.1:[1-9][0-9]{0,4}")
_Z85_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True)
class Connection:
    """What the connection file says.

    Attributes:
        pid: Process of the daemon.
        pid_start: When that process started, in seconds since the epoch.
        boot: Identifier of this run of the daemon.
        version: The daemon's version.
        protocol: Highest protocol it speaks.
        control: Endpoint of the control socket.
        data: Endpoint of the data socket.
        server_public: The daemon's CURVE key, Z85.
        client_public: The client's CURVE key, Z85.
        client_private: Its other half, Z85.
        mark: What tells the process from others of its number; see :func:`process_mark`.
    """

    pid: int
    pid_start: float
    boot: str
    version: str
    protocol: int
    control: str
    data: str
    server_public: str
    client_public: str
    client_private: str
    mark: float

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the file still runs."""
        return process_mark(self.pid) == self.mark


def read_connection(home: Path) -> Connection | None:
    """Read and check the connection file.

    Args:
        home: The daemon's home.

    Returns:
        What it says, or None when there is no daemon: no file, or the file of a
        process that ended.

    Raises:
        ClientError: ``E_CONNECTION_FILE`` for a file that is unsafe or damaged,
            ``E_ENGINE_VERSION`` for a running daemon of another format or an older protocol.
    """
    path = home / FILE_NAME
    data = _read_private(path)
    if data is None:
        return None
    try:
        fields = parse_json(data, SIZE_LIMIT)
    except SchemaError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(fields, dict):
        raise _damaged(path, "it is not an object")
    pid, started = _field(path, fields, "pid", int), _field(path, fields, "pid_start", float)
    known = process_start(pid) if pid > 0 else None
    mark = process_mark(pid) if pid > 0 else None
    if known is None or mark is None:
        return None
    # A start time is counted from the system's clock, and where somebody set that clock since, a daemon
    # that runs looks like another process. Who holds the home's lock is the daemon all the same.
    if abs(known - started) > START_TOLERANCE and not _holds_lock(pid, home / LOCK_NAME):
        return None
    # Only a daemon that runs can be of the wrong version; a stale file is of no interest.
    if fields.get("format") != FORMAT or _field(path, fields, "protocol", int) < PROTOCOL:
        raise version_error(str(fields.get("version", "unknown"))[:64], pid, home)
    return _connection(path, fields, pid, started, mark)


def version_error(version: str, pid: int, home: Path) -> ClientError:
    """The error for a daemon that this client cannot speak with."""
    return ClientError(
        "E_ENGINE_VERSION",
        f"The engine that runs in {home} has version {version} and does not speak protocol {PROTOCOL} of "
        f"this plugin. End its process ({pid}), then update the engine and the plugin to the same release.",
    )


def process_start(pid: int) -> float | None:
    """When a process started.

    On Linux from ``/proc``, on Windows from the kernel, elsewhere from ``ps``,
    because psutil is not part of QGIS's Python.

    Args:
        pid: Number of the process.

    Returns:
        Seconds since the epoch, or None when no such process runs. A process
        that ended and was not waited for does not run.
    """
    if sys.platform.startswith("linux"):
        return _start_linux(pid)
    if sys.platform == "win32":
        return _start_windows(pid)
    return _start_ps(pid)


def process_mark(pid: int) -> float | None:
    """A number that is the same as long as a process runs, and another for the next of its number.

    Args:
        pid: Number of the process.

    Returns:
        On Linux the start in clock ticks since the system's own, which setting
        the clock does not move; elsewhere :func:`process_start`, which the
        system recorded once. None when no such process runs.
    """
    if sys.platform.startswith("linux"):
        return _ticks_linux(pid)
    return process_start(pid)


def _read_private(path: Path) -> bytes | None:
    # One descriptor for the checks and the reading, so that the file cannot be changed in between.
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # where the system has them
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(path, f"it cannot be opened ({error.strerror})") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _unsafe(path, "it is not a plain file")
        # On Windows the folder in the user's profile is what keeps others out.
        if hasattr(os, "getuid"):
            if about.st_uid != os.getuid():
                raise _unsafe(path, "it belongs to another user")
            if stat.S_IMODE(about.st_mode) & 0o077:
                raise _unsafe(path, "other users have rights on it")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(descriptor)


def _connection(path: Path, fields: dict[str, Any], pid: int, started: float, mark: float) -> Connection:
    endpoints = [_field(path, fields, name, str) for name in ("control", "data")]
    keys = [_field(path, fields, name, str) for name in ("server_public", "client_public", "client_secret")]
    if not all(_ENDPOINT.fullmatch(endpoint) for endpoint in endpoints):
        raise _damaged(path, "an endpoint is not on this computer")
    if not all(_Z85_KEY.fullmatch(key) for key in keys):
        raise _damaged(path, "a key is not one")
    return Connection(
        pid,
        started,
        _field(path, fields, "boot", str),
        _field(path, fields, "version", str)[:64],
        _field(path, fields, "protocol", int),
        *endpoints,
        *keys,
        mark,
    )


def _field(path: Path, fields: dict[str, Any], name: str, kind: Any) -> Any:
    value = fields.get(name)
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _damaged(path, f"the field {name} is missing or wrong")
    return value


def _damaged(path: Path, why: str) -> ClientError:
    return ClientError(
        "E_CONNECTION_FILE",
        f"The engine's connection file {path} cannot be used: {why}. Stop the engine if it runs, delete the "
        "file and try again.",
    )


def _unsafe(path: Path, why: str) -> ClientError:
    return ClientError(
        "E_CONNECTION_FILE",
        f"The engine's connection file {path} is not safe to use: {why}. Delete it and start the engine "
        "again.",
    )


def _start_linux(pid: int) -> float | None:
    ticks = _ticks_linux(pid)
    if ticks is None:
        return None
    boot = Path("/proc/stat").read_bytes()
    booted = next(int(line.split()[1]) for line in boot.splitlines() if line.startswith(b"btime "))
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def _ticks_linux(pid: int) -> int | None:
    try:
        record = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name is in brackets and may hold anything, so count from the last bracket.
    fields = record.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _holds_lock(pid: int, path: Path) -> bool:
    """Whether a process holds a lock on a file; only Linux says, and only its start times move."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text("ascii")
    except OSError:  # no lock, or another system
        return False
    for line in locks.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 8771 fe:00:2146331 0 EOF; a lock waited for has an arrow after its number
        fields = line.split()
        if len(fields) == 8 and fields[4] == str(pid) and fields[5].endswith(f":{inode}"):
            return True
    return False


def _start_ps(pid: int) -> float | None:
    answer = subprocess.run(  # nosec B603 - a fixed command and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        env={"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )
    state, _, when = answer.stdout.strip().partition(" ")
    if not when or state.startswith("Z"):
        return None
    return time.mktime(time.strptime(when.strip(), "%a %b %d %H:%M:%S %Y"))


def _start_windows(pid: int) -> float | None:
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return None
    try:
        created, ended, system, user = (ctypes.c_uint64() for _ in range(4))
        times = [ctypes.byref(value) for value in (created, ended, system, user)]
        if not kernel.GetProcessTimes(ctypes.c_void_p(handle), *times) or ended.value:
            return None
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
    return created.value / 1e7 - 11_644_473_600  # 100 ns since 1601
