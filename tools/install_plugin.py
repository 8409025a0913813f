"""Put build/plugin/rest_qgis into the user's QGIS profile: linked, or copied on Windows.

Also points the plugin to this checkout's backend, so that *Segment* works at once.
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
from pathlib import Path

from assemble_plugin import PLUGIN, REPOSITORY

sys.path.insert(0, str(REPOSITORY))
from rest_qgis.install.folder import backend_folder  # standard library only


def profile_folder() -> Path:
    """Find the profile QGIS opens by default, of the newest QGIS that was run.

    Returns:
        The profile's folder; for a QGIS that was never started, the one it will make.
    """
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming") / "QGIS"
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support" / "QGIS"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "QGIS"
    releases = [base / name / "profiles" for name in ("QGIS4", "QGIS3")]
    profiles = next((folder for folder in releases if folder.is_dir()), releases[-1])
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(profiles / "profiles.ini", encoding="utf-8")
    return profiles / settings.get("core", "defaultProfile", fallback="default")


def install(profile: Path) -> Path:
    """Put the plugin into a profile, in place of what was installed there before.

    Args:
        profile: Folder of a QGIS profile.

    Returns:
        The plugin's folder in the profile.
    """
    target = profile / "python" / "plugins" / "rest_qgis"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)
    if sys.platform == "win32":  # links need a privilege there
        shutil.copytree(PLUGIN, target)
    else:
        target.symlink_to(PLUGIN, target_is_directory=True)
    return target


def point_to_backend(environment: Path) -> str:
    """Make the plugin find the backend of this checkout.

    Args:
        environment: The backend's virtual environment.

    Returns:
        What was done, or what the user has to do, in one sentence.
    """
    place = backend_folder()
    if sys.platform == "win32":
        command = environment / "Scripts" / "rest-backend.exe"
        return f'Engine: once the backend is installed there, run: setx REST_BACKEND "{command}"'
    if place.exists() and not place.is_symlink():
        return f"Engine: the one installed in {place} stays in use."
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(environment, target_is_directory=True)
    return f"Engine: {place} -> {environment}"


if __name__ == "__main__":
    print(f"Plugin: {install(profile_folder())}")
    print(point_to_backend(REPOSITORY / ".venv"))
    print(
        "Now start QGIS (again), open Plugins > Manage and Install Plugins > Installed\n"
        "and tick 'REST Whole-Scene Segmentation'. QGIS's Python needs pyzmq: where the plugin\n"
        "says it is missing: sudo apt install python3-zmq (Debian, Ubuntu), or\n"
        "python -m pip install pyzmq with QGIS's own Python (Windows: in the OSGeo4W Shell)."
    )
