"""Where the plugin's icons and styles lie.

``make plugin`` copies them into the plugin folder; in a source checkout they
are in ``resources/`` beside it.
"""

from __future__ import annotations

from pathlib import Path

_PLUGIN = Path(__file__).resolve().parent


def icon_path(name: str) -> str:
    """Return the path of the icon ``name``, such as ``rest.svg``."""
    return _resource("icons", name)


def style_path(name: str) -> str:
    """Return the path of the style ``name``, such as ``classmap.qml``."""
    return _resource("styles", name)


def _resource(kind: str, name: str) -> str:
    installed = _PLUGIN / kind / name
    if installed.exists():
        return str(installed)
    return str(_PLUGIN.parent / "resources" / kind / name)
