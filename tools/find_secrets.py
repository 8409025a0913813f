"""Scan a folder with detect-secrets as QGIS's plugin site does, and fail on any finding.

Usage: find_secrets.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings


def findings(folder: Path) -> list[str]:
    """Scan every file below a folder.

    Args:
        folder: The assembled plugin.

    Returns:
        ``FILE:LINE: KIND`` for each finding, in order.
    """
    secrets = SecretsCollection()
    with default_settings():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                secrets.scan_file(str(path))
    return [f"{name}:{secret.line_number}: {secret.type}" for name, secret in secrets]


if __name__ == "__main__":
    found = findings(Path(sys.argv[1]))
    print("\n".join(found) or "nothing found")
    sys.exit(bool(found))
