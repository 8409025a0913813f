"""The files of a scene: whether a text names one here, and whether they are still those that were opened."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rest_backend.errors import InputError

# Statistics and overviews: QGIS writes them while a layer is open, and no pixel is read from them.
_BESIDE = (".aux.xml", ".ovr")


_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/|[/\\]vsi")  # paths keep one slash; drives have one letter


def is_address(text: str) -> bool:
    """Whether a text names a place on the network or inside an archive, not a file of this computer."""
    return _ADDRESS.match(text) is not None


class SourceFiles:
    """Size, time and identity of files, as they are when this is made.

    Args:
        files: The files of a scene.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._states = {file: _state(file) for file in files if not file.name.lower().endswith(_BESIDE)}

    @property
    def fingerprint(self) -> str:
        """The same again as long as no file of them has another size or time."""
        states = sorted((str(file), state and state[:2]) for file, state in self._states.items())
        return hashlib.sha256(repr(states).encode()).hexdigest()

    def check(self) -> None:
        """Compare them with what they are now.

        Raises:
            InputError: ``E_SCENE_CHANGED``.
        """
        for file, state in self._states.items():
            now = _state(file)
            if now != state:
                happened = "deleted or moved" if now is None else "changed"
                raise InputError(
                    "E_SCENE_CHANGED",
                    f"{file.name} was {happened} while the job read it: nothing was written. Start the job "
                    "again when the scene is complete.",
                )


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116  follows links, as GDAL does
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
