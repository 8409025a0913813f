"""The daemon's folders and the models in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

from rest_backend.daemon.home import Home
from rest_backend.doctor.check import Check

LITTLE_DISK = 2_000_000_000  # bytes
_WHAT_TO_DO = "Free space, or name another folder by the variable REST_HOME."


def check_home(home: Home) -> Check:
    """Where the state lies, what of it takes how much, whether it can be written and is private."""
    place = _nearest(home.folder)
    free = shutil.disk_usage(place).free
    sizes = {
        name: _size(folder)
        for name, folder in (("spool", home.spool), ("inbox", home.inbox), ("log", home.log))
    }
    facts: dict[str, Any] = {"home": str(home.folder), "exists": home.folder.is_dir(), "free_bytes": free}
    facts |= {f"{name}_bytes": size for name, size in sizes.items()}
    facts["journal_bytes"] = home.journal.stat().st_size if home.journal.is_file() else 0
    message = (
        f"{home.folder}: "
        + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())
        + f"; {free / 1e9:.1f} GB of the disk are free"
    )
    facts["writable"] = os.access(place, os.W_OK | os.X_OK)
    if home.folder.exists() and not home.folder.is_dir():
        message = f"{home.folder} is no folder. Remove it, or name another by the variable REST_HOME."
        return Check("folders", "problem", message, facts)
    if not facts["writable"]:
        message = f"{place} cannot be written. Give yourself the right to, or set the variable REST_HOME."
        return Check("folders", "problem", message, facts)
    strangers = _open_to_others(home)
    if strangers:
        message = f"Other users can read {strangers}. End the daemon, delete that file and start it again."
        return Check("folders", "problem", message, facts)
    if free < LITTLE_DISK:
        return Check("folders", "warning", f"{message}, which is little. {_WHAT_TO_DO}", facts)
    return Check("folders", "ok", message, facts)


def check_models(home: Home) -> Check:
    """The installed models; a card that cannot be used is a warning, none that can a problem."""
    from rest_backend.models.zoo import models_folder, scan_models

    usable, broken = scan_models(home.folder)
    ids = [model.id for model in usable]
    facts = {
        "folder": str(models_folder(home.folder)),
        "usable": ids,
        "broken": [{"id": model.id, "code": model.error.code} for model in broken],
    }
    if not usable:
        message = "There is no model, not even the bundled one. Install rest-backend anew."
        return Check("models", "problem", message, facts)
    message = ", ".join(ids)
    if broken:
        told = "; ".join(f"{model.id}: {model.error.code}: {model.error.message}" for model in broken)
        return Check("models", "warning", f"{message}. Not usable: {told}", facts)
    return Check("models", "ok", message, facts)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(folder: Path) -> int:
    """Bytes of the files in a folder and below; of those that vanish meanwhile none."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total


def _open_to_others(home: Home) -> Path | None:
    if sys.platform == "win32":
        return None  # the user's data folder is private by its inherited access list
    keys = sorted(home.keys.glob("*.json")) if home.keys.is_dir() else []
    for path in (home.connection, *keys):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return path
    return None
