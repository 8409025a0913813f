"""Brings what the client's thread says to QGIS's main thread, as Qt signals."""

from __future__ import annotations

from typing import Any, Callable

from qgis.PyQt.QtCore import QObject, pyqtSignal

from rest_qgis.client import ClientError, JobListener
from rest_qgis.install.folder import home_folder
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.processing.desk import JobDesk, Order


class EngineLink(QObject):
    """The engine as widgets see it.

    Its signals are emitted on the main thread, never from within a call of a method here.

    Signals:
        state_changed: Name of the client's ``EngineState`` and a sentence about it.
        models_changed: The daemon's model summaries, a list of dicts.
        refused: A request failed. Arguments: code, sentence.
        job_submitted: Arguments: order, job.
        job_progress: Arguments: order, progress.
        job_done: Arguments: order, done.
        job_failed: Arguments: order, code, sentence.
    """

    state_changed = pyqtSignal(str, str)
    models_changed = pyqtSignal(object)
    refused = pyqtSignal(str, str)
    job_submitted = pyqtSignal(object, object)
    job_progress = pyqtSignal(object, object)
    job_done = pyqtSignal(object, object)
    job_failed = pyqtSignal(object, str, str)

    def __init__(self, desk: JobDesk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._desk = desk
        self._main = MainThread(self)
        desk.on_state = self._tell_state
        desk.observe(self._listen)

    def start(self) -> None:
        """Start the engine and ask for its models; the answers come as signals."""
        self._attempt(self._desk.start)
        self._attempt(lambda: self._desk.models(self._tell_models))

    def stop(self) -> None:
        """Ask the daemon to end."""
        self._attempt(lambda: self._desk.shutdown(self._tell_shutdown))

    def segment(self, order: Order) -> Any:
        """Hand in a job; what becomes of it comes as signals.

        Returns:
            The job, or None where it was refused at once.
        """
        try:
            return self._desk.segment(order, JobListener())
        except ClientError as error:
            code, message = error.code, error.message
            self._main.post(lambda: self.job_failed.emit(order, code, message))
            return None

    def log_folder(self) -> str:
        """Return the folder of the daemon's log."""
        return str(home_folder().absolute() / "log")

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._desk.forget(self._listen)
        self._desk.on_state = None
        self._main.close()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ClientError as error:
            self._refuse(error)

    def _refuse(self, error: ClientError) -> None:
        self._main.post(lambda: self.refused.emit(error.code, error.message))

    # --- on the client's thread -----------------------------------------------------

    def _listen(self, order: Order) -> _Relay:
        return _Relay(self, self._main, order)

    def _tell_state(self, state: Any) -> None:
        self._main.post(lambda: self.state_changed.emit(state.name, state.message))

    def _tell_models(self, summaries: list[dict[str, Any]] | None, error: ClientError | None) -> None:
        if error is None:
            self._main.post(lambda: self.models_changed.emit(summaries))
        else:
            self._refuse(error)

    def _tell_shutdown(self, error: ClientError | None) -> None:
        if error is not None:
            self._refuse(error)


class _Relay(JobListener):
    """Turns the events of one job into the link's signals."""

    def __init__(self, link: EngineLink, main: MainThread, order: Order) -> None:
        self._link = link
        self._main = main
        self._order = order

    def submitted(self, job: Any) -> None:
        self._main.post(lambda: self._link.job_submitted.emit(self._order, job))

    def progress(self, job: Any, progress: Any) -> None:
        self._main.post(lambda: self._link.job_progress.emit(self._order, progress))

    def done(self, job: Any, done: Any) -> None:
        self._main.post(lambda: self._link.job_done.emit(self._order, done))

    def failed(self, job: Any, code: str, message: str) -> None:
        self._main.post(lambda: self._link.job_failed.emit(self._order, code, message))
