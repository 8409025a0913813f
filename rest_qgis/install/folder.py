"""The folders of an installed engine and of its state, without third-party packages.

The daemon names the same folders with ``platformdirs``; this module must agree,
because QGIS's Python does not have that package.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

APPLICATION = "rest-qgis"


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


def backend_folder() -> Path:
    """The environment an installation of the backend makes (it may not exist yet)."""
    return data_folder() / "backend"


def installed_command() -> Path:
    """The command ``rest-backend`` of an installed backend (it may not exist yet)."""
    if sys.platform == "win32":
        return backend_folder() / "Scripts" / "rest-backend.exe"
    return backend_folder() / "bin" / "rest-backend"
