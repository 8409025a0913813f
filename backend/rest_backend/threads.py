"""How compute threads wait for each other, decided before torch is loaded."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let waiting OpenMP threads sleep rather than spin; call it before torch is imported.

    A stripe is many short operations. When QGIS or anything else wants a core, spinning
    threads wait for partners that are not running: the sample scene took 20 to 54 s on
    two busy cores instead of 4 to 10 s. On idle cores sleeping costs up to a fifth.
    A value the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
