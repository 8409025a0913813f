"""Where the plugin's icons lie.

``make plugin`` copies them into the plugin folder; in a source checkout they
are in ``resources/icons`` beside it.
"""

from __future__ import annotations

from pathlib import Path

_PLUGIN = Path(__file__).resolve().parent


def icon_path(name: str) -> str:
    """Return the path of the icon ``name``, such as ``rest.svg``."""
    installed = _PLUGIN / "icons" / name
    return str(installed if installed.exists() else _PLUGIN.parent / "resources" / "icons" / name)
