"""The daemon's folder: where its state lies and who may read it."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from rest_backend.errors import InputError


def home() -> Path:
    """Folder of the daemon's state: ``REST_HOME``, else the user's data folder."""
    chosen = os.environ.get("REST_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("rest-qgis", appauthor=False))


@dataclass(frozen=True)
class Home:
    """Paths inside the daemon's folder.

    Attributes:
        folder: The folder itself, readable by its owner only.
    """

    folder: Path

    @property
    def connection(self) -> Path:
        """Addresses and keys for the client, there while the daemon serves."""
        return self.folder / "connection.json"

    @property
    def journal(self) -> Path:
        """SQLite file with jobs and row blocks."""
        return self.folder / "journal.sqlite"

    @property
    def spool(self) -> Path:
        """One folder per job with its finished rows."""
        return self.folder / "spool"

    @property
    def inbox(self) -> Path:
        """One folder per key of a job, with files its client made for it."""
        return self.folder / "inbox"

    @property
    def log(self) -> Path:
        """Log files of daemon and workers."""
        return self.folder / "log"

    @property
    def keys(self) -> Path:
        """Long-term key pairs."""
        return self.folder / "keys"

    @property
    def lock(self) -> Path:
        """Locked by the one daemon that uses this folder."""
        return self.folder / "daemon.lock"

    def prepare(self) -> None:
        """Create the folder and its parts, closed to other users.

        Raises:
            InputError: ``E_HOME``: it cannot be made, or belongs to someone else.
        """
        try:
            for folder in (self.folder, self.spool, self.inbox, self.log, self.keys):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _close_to_others(folder)
        except OSError as error:
            message = f"The engine's folder {self.folder} cannot be used: {error}"
            raise InputError("E_HOME", message) from error


def _close_to_others(folder: Path) -> None:
    if sys.platform == "win32":
        return  # the user's data folder is private by its inherited access list
    status = folder.stat()
    if status.st_uid != os.getuid():
        raise InputError("E_HOME", f"The engine's folder {folder} belongs to another user.")
    if stat.S_IMODE(status.st_mode) != 0o700:
        folder.chmod(0o700)
