"""From a filled-in form to an order, off the main thread: files, windows, copies take time."""

from __future__ import annotations

from typing import Callable

from qgis.core import QgsTask

from rest_qgis.client import ClientError
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.processing.desk import Order
from rest_qgis.processing.errors import OrderError


class Preparation(QgsTask):
    """Makes one order on QGIS's task thread; what comes of it is told on the main thread.

    Args:
        title: What QGIS's list of tasks calls it.
        make: Makes the order; called on the task's thread with this task, to tell its progress to and
            to look at for a cancel.
        on_progress: Called on the main thread with the share that is done, 0 to 1; or None.
        on_end: Called on the main thread with this task, whatever came of it.

    Attributes:
        order: The order, once made.
        error: Why there is none; None where it was cancelled.
        notes: What the user should know, as whoever makes the order says.
    """

    def __init__(
        self,
        title: str,
        make: Callable[[Preparation], Order],
        on_progress: Callable[[float], None] | None,
        on_end: Callable[[Preparation], None],
    ) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self.order: Order | None = None
        self.error: OrderError | ClientError | None = None
        self.notes: tuple[str, ...] = ()
        self._make = make
        self._on_progress = on_progress
        self._on_end: Callable[[Preparation], None] | None = on_end
        self._main = MainThread()

    def setProgress(self, percent: float) -> None:
        """Tell how much is done; from the task's thread."""
        super().setProgress(percent)
        on_progress = self._on_progress
        if on_progress is not None:
            self._main.post(lambda: on_progress(percent / 100.0))

    def leave(self) -> None:
        """Cancel, and tell nobody any more."""
        self._main.close()
        self._on_end = None
        self.cancel()

    def run(self) -> bool:
        """Make the order; on the task's thread."""
        try:
            self.order = self._make(self)
        except (OrderError, ClientError) as error:
            self.error = error
            return False
        return not self.isCanceled()

    def finished(self, result: bool) -> None:
        """Hand over what came of it; on the main thread."""
        self._main.close()
        if not result:
            self.order = None
        if self.isCanceled():
            self.error = None
        if self._on_end is not None:
            self._on_end(self)
