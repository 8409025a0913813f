"""Calling what the caller gave us, on the client's thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("rest_qgis.client")


def tell(callback: Callable[..., None], *arguments: Any) -> None:
    """Call a callback or a listener's method; its faults must not stop the thread that serves all others."""
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - code of the caller's, logged with its traceback
        _log.exception("%s failed", getattr(callback, "__qualname__", callback))
