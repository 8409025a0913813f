"""Leaving out of a report what is nobody else's business.

Secrets, paths, addresses, and the names of user and computer. Paths that the
journal names go first, since only a list finds those with blanks in them and
file names that stand alone; then everything that looks like a path. Rather too
much goes than too little.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import ntpath
import os
import platform
import posixpath
import re
import socket
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rest_backend
from rest_backend.daemon.home import Home
from rest_backend.daemon.probe import named_paths

_FILE_ENDS = (
    "tiff?|vrt|img|jp2|ecw|sid|nc|hdf5?|h5|zarr|png|jpe?g|gpkg|shp|geojson|json|kml|gml|fgb|csv|qgz|qgs|qml|"
    "safetensors|xml|dat|bil|bip|bsq|zip|sqlite"
)
# A path begins where no word, tag or other path does; of a URL and a share, all of it.
_START = r"(?<![\w<>/\\.~-])"
_PATTERNS = (
    (re.compile(rf"{_START}/vsi[^\s'\"<>]+"), "<address>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE), "<address>"),
    (re.compile(r"(?<=')(?:/|~|[A-Za-z]:[\\/]|\\\\)[^'\n]{1,4096}(?=')"), "<path>"),
    (re.compile(r'(?<=")(?:/|~|[A-Za-z]:[\\/]|\\\\)[^"\n]{1,4096}(?=")'), "<path>"),
    (
        re.compile(
            rf"{_START}(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^\n'\"<>|]{{0,512}}?\.(?:{_FILE_ENDS})\b", re.IGNORECASE
        ),
        "<path>",
    ),
    (re.compile(rf"{_START}(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^\s'\"<>|,;()]+"), "<path>"),
)


class Redactor:
    """Replaces, in texts and in whatever JSON holds.

    Args:
        home: The daemon's folders; its secrets and the paths of its jobs are looked up.
    """

    def __init__(self, home: Home) -> None:
        self._exact = [
            *((secret, "<secret>") for secret in _secrets(home)),
            *((path, "<path>") for path in _longest_first(named_paths(home.journal))),
        ]
        self._folders = _folders(home)
        files = {_file_name(path) for path in named_paths(home.journal)}
        self._words = [
            *((name, "<file>") for name in _longest_first(files)),
            *((name, "<user>") for name in _longest_first(_user_names())),
            *((name, "<computer>") for name in _longest_first(_computer_names())),
        ]

    def text(self, text: str) -> str:
        """The text without secrets, paths, addresses and names."""
        for known, shown in self._exact:
            text = text.replace(known, shown)
        for folder, shown in self._folders:
            text = re.sub(rf"{re.escape(folder)}(?![\w.-])", shown, text)
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
        for word, shown in self._words:
            text = re.sub(
                rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", shown, text, flags=re.IGNORECASE
            )
        return text

    def value(self, value: Any) -> Any:
        """JSON types with every text in them redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _secrets(home: Home) -> list[str]:
    """Keys in the connection file and the key files, public ones too."""
    found = set()
    for path in (home.connection, *sorted(home.keys.glob("*.json"))):
        try:
            fields = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(fields, dict):
            found |= {item for item in fields.values() if isinstance(item, str) and len(item) >= 32}
    return _longest_first(found)


def _folders(home: Home) -> list[tuple[str, str]]:
    """Folders whose place is private and whose insides are ours or Python's."""
    known = {
        str(home.folder): "<home>",
        str(Path(rest_backend.__file__).parent): "<rest_backend>",
        sysconfig.get_path("purelib"): "<packages>",
        sysconfig.get_path("stdlib"): "<python>",
    }
    return [(folder, known[folder]) for folder in _longest_first(known)]


def _user_names() -> set[str]:
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")}
    names.add(Path.home().name)
    with contextlib.suppress(KeyError, OSError):  # a container's user need not have an entry
        names.add(getpass.getuser())
    return names - {""}


def _computer_names() -> set[str]:
    names = {socket.gethostname(), platform.node()}
    return {part for name in names for part in (name, name.partition(".")[0])} - {"", "localhost"}


def _file_name(path: str) -> str:
    return ntpath.basename(posixpath.basename(path))


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted((text for text in texts if text), key=len, reverse=True)
