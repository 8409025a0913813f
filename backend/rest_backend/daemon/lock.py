"""One daemon per folder: a lock of the operating system, not a file that may go stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from rest_backend.errors import InputError

# Windows locks byte ranges for reading too; a byte far behind the text leaves the text readable.
_LOCKED_BYTE = 1 << 30


class DaemonLock:
    """Held while a daemon uses its folder; released by the system when it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> DaemonLock:
        """Take the lock.

        Raises:
            InputError: ``E_ALREADY_RUNNING``: another daemon holds it; names its pid.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0) if hasattr(os, "pread") else os.read(descriptor, 32)
            os.close(descriptor)
            pid = holder.decode("ascii", "replace").strip() or "unknown"
            raise InputError(
                "E_ALREADY_RUNNING",
                f"The engine is already running in {self._path.parent} (process {pid}).",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        os.fsync(descriptor)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The file stays: removing it would let two daemons lock two files of one name.
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
