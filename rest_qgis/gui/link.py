"""Brings what the client's thread says to QGIS's main thread, as Qt signals."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Callable

from qgis.PyQt.QtCore import QObject, pyqtSignal

from rest_qgis.client import ClientError, JobListener
from rest_qgis.install.folder import home_folder
from rest_qgis.layers.main_thread import MainThread
from rest_qgis.processing.desk import JobDesk, Order


class EngineLink(QObject):
    """The engine as widgets see it.

    Its signals are emitted on the main thread, never from within a call of a method here.

    Attributes:
        state: Name of the client's ``EngineState``, as :attr:`state_changed` told it last.
        models: The daemon's model summaries, as :attr:`models_changed` told them last.
        jobs: The daemon's jobs, as :attr:`jobs_changed` told them last.

    Signals:
        state_changed: Name of the client's ``EngineState`` and a sentence about it.
        models_changed: The daemon's model summaries, a list of dicts.
        jobs_changed: The daemon's jobs, a list of dicts with the fields of ``job_status``; empty while
            the engine is off.
        plan_changed: The plan of the newest :meth:`plan`, a dict.
        plan_refused: Nothing can be planned for the newest :meth:`plan`. Arguments: code, sentence.
        refused: A request failed. Arguments: code, sentence.
        job_submitted: Arguments: order, job.
        job_progress: Arguments: order, progress.
        job_done: Arguments: order, done.
        job_failed: Arguments: order, code, sentence.
    """

    state_changed = pyqtSignal(str, str)
    models_changed = pyqtSignal(object)
    jobs_changed = pyqtSignal(object)
    plan_changed = pyqtSignal(object)
    plan_refused = pyqtSignal(str, str)
    refused = pyqtSignal(str, str)
    job_submitted = pyqtSignal(object, object)
    job_progress = pyqtSignal(object, object)
    job_done = pyqtSignal(object, object)
    job_failed = pyqtSignal(object, str, str)

    def __init__(self, desk: JobDesk, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = "stopped"
        self.models: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self._desk = desk
        self._main = MainThread(self)
        self._plans = itertools.count(1)
        self._plan = 0  # number of the newest question for a plan
        self._asking_jobs = self._ask_again = False
        desk.on_state = self._tell_state
        desk.observe(self._listen)

    def start(self) -> None:
        """Start the engine and ask for its models; the answers come as signals."""
        self._attempt(self._desk.start)
        self._attempt(lambda: self._desk.models(self._tell_models))

    def stop(self) -> None:
        """Ask the daemon to end."""
        self._attempt(lambda: self._desk.shutdown(self._tell_error))

    def segment(self, order: Order) -> Any:
        """Hand in a job; what becomes of it comes as signals.

        Returns:
            The job, or None where it was refused at once.
        """
        return self._follow(order, self._desk.segment)

    def resume(self, order: Order) -> Any:
        """Take up a job of an earlier session, or of another one, by the order's key; as :meth:`segment`."""
        return self._follow(order, self._desk.resume)

    def plan(self, order: Order) -> None:
        """Ask what a job would take; :attr:`plan_changed` or :attr:`plan_refused` answers the newest."""
        number = self._plan = next(self._plans)
        try:
            self._desk.plan(order, lambda plan, error: self._tell_plan(number, plan, error))
        except ClientError as error:
            self._tell_plan(number, None, error)

    def ask_jobs(self) -> None:
        """Ask for the list of jobs; :attr:`jobs_changed` answers. Never starts the engine."""
        if self._asking_jobs:
            self._ask_again = True  # the answer under way may be older than what made us ask
            return
        self._asking_jobs, self._ask_again = True, False
        try:
            self._desk.status(self._tell_jobs)
        except ClientError as error:
            self._tell_jobs(None, error)

    def cancel(self, job_id: str) -> None:
        """End any job of the list, by its id; the list is asked for again."""
        self._attempt(lambda: self._desk.cancel(job_id, lambda _job, error: self._tell_change(error)))

    def delete(self, job_id: str) -> None:
        """Take a job that ended off the list, by its id; the list is asked for again."""
        self._attempt(lambda: self._desk.delete(job_id, self._tell_change))

    def inbox(self, key: str) -> Path:
        """Return the folder for the own files of a job to come, made; from any thread.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq, or the folder cannot be made.
        """
        return self._desk.inbox(key)

    def log_folder(self) -> str:
        """Return the folder of the daemon's log."""
        return str(home_folder().absolute() / "log")

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._desk.forget(self._listen)
        self._desk.on_state = None
        self._main.close()

    def _follow(self, order: Order, hand_in: Callable[[Order, JobListener], Any]) -> Any:
        try:
            return hand_in(order, JobListener())
        except ClientError:  # job_failed tells it
            return None

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ClientError as error:
            self._tell_error(error)

    # --- on the client's thread -----------------------------------------------------

    def _listen(self, order: Order) -> _Relay:
        return _Relay(self, self._main, order)

    def _tell_state(self, state: Any) -> None:
        self._main.post(lambda: self._take_state(state.name, state.message))

    def _tell_models(self, summaries: list[dict[str, Any]] | None, error: ClientError | None) -> None:
        if summaries is None:
            self._tell_error(error)
        else:
            self._main.post(lambda: self._take_models(summaries))

    def _tell_jobs(self, status: dict[str, Any] | None, error: ClientError | None) -> None:
        # An engine that is off has told its state already; the next question may find it again.
        jobs = [] if status is None else status["jobs"]
        self._main.post(lambda: self._take_jobs(jobs))

    def _tell_plan(self, number: int, plan: dict[str, Any] | None, error: ClientError | None) -> None:
        self._main.post(lambda: self._take_plan(number, plan, error))

    def _tell_change(self, error: ClientError | None) -> None:
        self._tell_error(error)
        self._main.post(self.ask_jobs)

    def _tell_error(self, error: ClientError | None) -> None:
        if error is not None:
            code, message = error.code, error.message
            self._main.post(lambda: self.refused.emit(code, message))

    # --- on the main thread -----------------------------------------------------------

    def _take_state(self, name: str, message: str) -> None:
        self.state = name
        self.state_changed.emit(name, message)
        if name == "ready":
            self.ask_jobs()
        elif name in ("stopped", "failed"):
            self._take_jobs([])

    def _take_models(self, summaries: list[dict[str, Any]]) -> None:
        self.models = summaries
        self.models_changed.emit(summaries)

    def _take_jobs(self, jobs: list[dict[str, Any]]) -> None:
        self._asking_jobs = False
        self.jobs = jobs
        self.jobs_changed.emit(jobs)
        if self._ask_again:
            self.ask_jobs()

    def _take_plan(self, number: int, plan: dict[str, Any] | None, error: ClientError | None) -> None:
        if number != self._plan:
            return  # the question was replaced
        if error is None:
            self.plan_changed.emit(plan)
        else:
            self.plan_refused.emit(error.code, error.message)


class _Relay(JobListener):
    """Turns the events of one job into the link's signals."""

    def __init__(self, link: EngineLink, main: MainThread, order: Order) -> None:
        self._link = link
        self._main = main
        self._order = order

    def submitted(self, job: Any) -> None:
        self._main.post(lambda: self._link.job_submitted.emit(self._order, job))
        self._main.post(self._link.ask_jobs)

    def progress(self, job: Any, progress: Any) -> None:
        self._main.post(lambda: self._link.job_progress.emit(self._order, progress))

    def done(self, job: Any, done: Any) -> None:
        self._main.post(lambda: self._link.job_done.emit(self._order, done))
        self._main.post(self._link.ask_jobs)

    def failed(self, job: Any, code: str, message: str) -> None:
        self._main.post(lambda: self._link.job_failed.emit(self._order, code, message))
        self._main.post(self._link.ask_jobs)
