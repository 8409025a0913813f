"""Waiting for a job on Processing's thread, with its progress told to a feedback object."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from qgis.core import QgsProcessingFeedback
from qgis.PyQt.QtCore import QCoreApplication

from rest_qgis.client import ClientError
from rest_qgis.processing.desk import JobDesk, Order
from rest_qgis.processing.errors import RunError

POLL_SECONDS = 0.1  # how often a cancel is looked for
_CANCEL_SECONDS = 10.0  # for the daemon to say that it cancelled


@dataclass(frozen=True)
class Result:
    """A finished job: its id and its summary, as ``rest-backend segment --json`` prints it."""

    job_id: str
    summary: Mapping[str, Any]


class JobRun:
    """One job from Processing's side.

    The listener's methods run on the client's thread and only queue what they
    hear; :meth:`segment` reads the queue on the caller's thread.

    Attributes:
        job_id: The daemon's id of the job, empty until it has taken the job.
    """

    def __init__(self, desk: JobDesk, feedback: QgsProcessingFeedback) -> None:
        self.job_id = ""
        self._desk = desk
        self._feedback = feedback
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._told: set[str] = set()
        self._cancelled: float | None = None  # when the cancel was passed on, once a run

    def models(self) -> list[dict[str, Any]]:
        """Return the daemon's model summaries, started if it is not running; waits.

        Raises:
            RunError: The engine cannot be started, or the user cancelled.
        """
        self._attempt(lambda: self._desk.models(self._answered))
        while True:
            kind, value = self._next(_give_up)
            if kind == "models":
                return value

    def inbox(self, key: str) -> Path:
        """Return the folder for files of a job's own, made where missing.

        Raises:
            RunError: It cannot be made.
        """
        return self._attempt(lambda: self._desk.inbox(key))

    def segment(self, order: Order) -> Result:
        """Run the job and wait for its end.

        Raises:
            RunError: It failed (with the daemon's code), or the user cancelled (``E_CANCELLED``).
        """
        job = self._attempt(lambda: self._desk.segment(order, self))
        while True:
            kind, value = self._next(job.cancel)
            if kind == "submitted":
                self._feedback.pushInfo(_tr("Job: {0}").format(value))
            elif kind == "progress":
                self._tell(value)
            elif kind == "done":
                summary = value.summary
                for note in summary.get("notes") or []:
                    self._warn(str(note))
                operators = summary.get("fallback_ops") or []
                if operators:
                    self._warn(
                        _tr("Computed on the whole scene at once, because no rule sweeps them: {0}").format(
                            ", ".join(str(operator) for operator in operators)
                        )
                    )
                self._feedback.setProgress(100.0)
                return Result(job.id, summary)

    # --- on the client's thread -----------------------------------------------------------

    def _answered(self, summaries: list[dict[str, Any]] | None, error: ClientError | None) -> None:
        if error is None:
            self._events.put(("models", summaries))
        else:
            self._events.put(("failed", (error.code, error.message)))

    def submitted(self, job: Any) -> None:
        """Queue that the daemon took the job."""
        self.job_id = job.id
        self._events.put(("submitted", job.id))

    def progress(self, job: Any, progress: Any) -> None:
        """Queue how far it is."""
        self._events.put(("progress", progress))

    def rows(self, job: Any, rows: Any) -> None:
        """Rows are the live layer's business."""

    def done(self, job: Any, done: Any) -> None:
        """Queue the end."""
        self._events.put(("done", done))

    def failed(self, job: Any, code: str, message: str) -> None:
        """Queue the failure."""
        self._events.put(("failed", (code, message)))

    # --- on the caller's thread ---------------------------------------------------------

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except ClientError as error:
            raise RunError(error.code, error.message) from error

    def _next(self, cancel: Callable[[], None]) -> tuple[str, Any]:
        """Wait for an event; a cancelled feedback cancels the job once, then still waits for its end."""
        while True:
            try:
                return self._heard(cancel)
            except KeyboardInterrupt:  # Ctrl-C in a script; qgis_process itself cancels its feedback
                self._feedback.cancel()

    def _heard(self, cancel: Callable[[], None]) -> tuple[str, Any]:
        while True:
            if self._feedback.isCanceled():
                if self._cancelled is None:
                    self._cancelled = time.monotonic()
                    cancel()
                elif time.monotonic() - self._cancelled > _CANCEL_SECONDS:
                    raise RunError("E_CANCELLED", _tr("Cancelled, but the engine did not confirm it."))
            try:
                kind, value = self._events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if kind == "failed":
                raise RunError(*value)
            return kind, value

    def _tell(self, progress: Any) -> None:
        if progress.rows:
            self._feedback.setProgress(100.0 * progress.rows_done / progress.rows)
        stage = f"{progress.stage}@{progress.device}"
        if stage not in self._told:
            self._told.add(stage)
            place = _tr(" on {0}").format(progress.device) if progress.device else ""
            size = _tr(", {0} rows").format(progress.rows) if progress.rows else ""
            self._feedback.pushInfo(f"{progress.stage}{place}{size}")
        if progress.note:
            self._warn(progress.note)

    def _warn(self, text: str) -> None:
        if not any(text in told for told in self._told):  # progress tells all notes in one text
            self._told.add(text)
            self._feedback.pushWarning(text)


def _give_up() -> None:
    raise RunError("E_CANCELLED", _tr("Cancelled before the job was handed in."))


def _tr(text: str) -> str:
    return QCoreApplication.translate("JobRun", text)
