"""Where the bundled model and the sample scene lie: in the wheel, or in the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundled_folder(kind: str) -> Path:
    """Folder of what ships with the backend.

    Args:
        kind: ``models`` or ``scenes``.

    Returns:
        ``rest_backend/resources/KIND`` of an installed wheel, else ``resources/KIND``
        of the source checkout an editable install points to.
    """
    installed = _PACKAGE / "resources" / kind
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "resources" / kind
