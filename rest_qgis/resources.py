"""Where the plugin's icons and styles lie.

``make plugin`` copies them into the plugin folder; in a source checkout they
are in ``resources`` beside it.
"""

from __future__ import annotations

from pathlib import Path

_PLUGIN = Path(__file__).resolve().parent


def icon_path(name: str) -> str:
    """Return the path of the icon ``name``, such as ``rest.svg``."""
    return _path("icons", name)


def style_path(name: str) -> str:
    """Return the path of the layer style ``name``, such as ``class_map.qml``."""
    return _path("styles", name)


def _path(folder: str, name: str) -> str:
    installed = _PLUGIN / folder / name
    return str(installed if installed.exists() else _PLUGIN.parent / "resources" / folder / name)
