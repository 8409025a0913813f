"""Calls handed over from the client's thread, run on QGIS's main thread."""

from __future__ import annotations

from collections import deque
from typing import Callable

from qgis.PyQt.QtCore import QObject, Qt, pyqtSignal


class MainThread(QObject):
    """A queue of calls for the thread this object was made in.

    The signal that wakes the main thread carries nothing. One that carried a Python
    object, and was still undelivered when QGIS closes, would destroy that object while
    Qt holds its event queue: QGIS then hangs for ever.
    """

    _posted = pyqtSignal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls: deque[Callable[[], None]] = deque()
        self._closed = False
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the main thread soon, in order; from any thread. Ignored once closed."""
        if not self._closed:
            self._calls.append(call)
            self._posted.emit()

    def close(self) -> None:
        """Forget what has not run yet. May be called twice."""
        self._closed = True
        self._calls.clear()

    def _run(self) -> None:
        while self._calls:
            self._calls.popleft()()
