"""The folders of an installed engine and of its state, without third-party packages.

The daemon names the same folders with ``platformdirs``; this module must agree,
because QGIS's Python does not have that package.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

APPLICATION = "rest-qgis"
KEEP_SECONDS = 7 * 24 * 3600.0  # as the daemon keeps jobs that ended


def data_folder() -> Path:
    r"""The application's folder in the user's data: everything of ours lies in it.

    Returns:
        ``%LOCALAPPDATA%\rest-qgis`` on Windows, ``~/Library/Application
        Support/rest-qgis`` on macOS, ``$XDG_DATA_HOME/rest-qgis`` elsewhere.
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", "").strip() or Path.home() / ".local" / "share")
    return base / APPLICATION


def home_folder() -> Path:
    """The engine's state folder: the variable ``REST_HOME``, or the application's folder."""
    chosen = os.environ.get("REST_HOME", "").strip()
    return Path(chosen).expanduser() if chosen else data_folder()


def results_folder() -> Path:
    """Where results go that got no place of their own, and what layers show of running jobs (may not exist).

    QGIS deletes its temporary folder when it closes; a job goes on and still has to be written.
    """
    return home_folder().absolute() / "results"


def make_results_folder() -> None:
    """Make that folder, for this user only. Where it cannot be made, the engine says why it cannot write."""
    with suppress(OSError):
        home_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        results_folder().mkdir(mode=0o700, exist_ok=True)


def tidy_results() -> None:
    """Delete results the daemon knows no job of any more; takes a while, so on a thread of its own."""
    oldest = time.time() - KEEP_SECONDS
    with suppress(OSError):  # there is none yet, or somebody else tidies at the same time
        for path in results_folder().iterdir():
            if path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()


def backend_folder() -> Path:
    """The environment an installation of the backend makes (it may not exist yet)."""
    return data_folder() / "backend"


def installed_command() -> Path:
    """The command ``rest-backend`` of an installed backend (it may not exist yet)."""
    if sys.platform == "win32":
        return backend_folder() / "Scripts" / "rest-backend.exe"
    return backend_folder() / "bin" / "rest-backend"
