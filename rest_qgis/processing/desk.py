"""The desk: the one engine of this QGIS, and every job that is asked of it.

Dock and toolbox hand their jobs in here, so that what watches jobs (the live
layers, the toolbar) sees them all. Nothing here belongs to a thread: orders
come from the main thread and from Processing's, events from the client's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol

from qgis.core import QgsSettings

from rest_qgis.client import new_key

if TYPE_CHECKING:
    from rest_qgis.client import ClientError, Engine, EngineState, Job, JobRequest

BACKEND_SETTING = "rest_qgis/backend"  # path of the command rest-backend


@dataclass(frozen=True)
class Order:
    """One job as the user asked for it.

    Attributes:
        scene: File to segment.
        model: Model id, or path of a card.
        output: File to write.
        classes: The model's classes, each with ``id``, ``name`` and ``color``.
        title: Name of the result's layer.
        window: Column, row, width, height in the scene's pixels; None is the whole scene.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        memory_bytes: Bound of the worker's memory; 0 lets the daemon decide.
        keep_layer: Whether the job's live layer stays as the result's layer.
        watchable: Whether a live layer can be drawn while the job runs.
        bands: Bands of the scene, from 1, in the model's order; empty: matched by what they show.
        aoi: Vector file; only what its polygons cover gets a class. Empty: no mask.
        resolution_m: Metres per pixel the network shall see; 0: the scene's own.
        preview: A quick look at one window, in place of the preview before it.
        confidence: Raster to write with the highest softmax of each pixel; empty: none.
        probabilities: Raster to write with the softmax of every class; empty: none.
        abandon_seconds: The daemon cancels the job when nobody watches it for so long; 0: never.
        key: The client's name of the job, by which it is found again. Files of the job's own lie in
            the engine's inbox under this name.
    """

    scene: str
    model: str
    output: str
    classes: Sequence[Any]
    title: str
    window: tuple[int, int, int, int] | None = None
    device: str = "auto"
    memory_bytes: int = 0
    keep_layer: bool = True
    watchable: bool = True
    bands: tuple[int, ...] = ()
    aoi: str = ""
    resolution_m: float = 0.0
    preview: bool = False
    confidence: str = ""
    probabilities: str = ""
    abandon_seconds: int = 0
    key: str = field(default_factory=new_key)


class Listener(Protocol):
    """What hears of one job, on the client's thread; of one refused at once, on the asker's, as no job."""

    def submitted(self, job: Job) -> None:
        """Hear that the daemon has taken the job."""

    def progress(self, job: Job, progress: Any) -> None:
        """Hear how far it is."""

    def rows(self, job: Job, rows: Any) -> None:
        """Receive finished rows."""

    def done(self, job: Job, done: Any) -> None:
        """Hear that the output is in place."""

    def failed(self, job: Job | None, code: str, message: str) -> None:
        """Hear that there is no result, and why."""


class JobDesk:
    """Starts jobs on one shared engine and lets observers listen to each of them.

    Attributes:
        keep_engine: Whether the link stays open between jobs: yes where there is a toolbar, no
            under ``qgis_process``.
        on_state: Told every change of the engine's state, on the client's thread.
    """

    def __init__(self) -> None:
        self.keep_engine = False
        self.on_state: Callable[[EngineState], None] | None = None
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._sessions = 0
        self._observers: list[Callable[[Order], Listener | None]] = []

    def observe(self, observer: Callable[[Order], Listener | None]) -> None:
        """Ask ``observer`` for a listener of every job from now on; it hears before the asker does."""
        self._observers.append(observer)

    def forget(self, observer: Callable[[Order], Listener | None]) -> None:
        """Undo :meth:`observe`; unknown observers are ignored."""
        if observer in self._observers:
            self._observers.remove(observer)

    def start(self) -> None:
        """Have the daemon running; returns at once.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        self._linked().start()

    def models(self, callback: Callable[[list[dict[str, Any]] | None, ClientError | None], None]) -> None:
        """Ask for the models.

        Args:
            callback: Called on the client's thread with the summaries and None, or with None and the error.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        self._linked().models(callback)

    def shutdown(self, callback: Callable[[ClientError | None], None]) -> None:
        """End the daemon.

        Args:
            callback: Called on the client's thread with None once it has ended, or with the error.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        self._linked().shutdown(callback)

    def segment(self, order: Order, listener: Listener) -> Job:
        """Hand in a job; returns at once.

        Args:
            order: What to do.
            listener: Hears of the job, after the observers.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq, or a path is not absolute.
        """
        return self._hand_in(
            order, listener, lambda heard: self._linked().segment(_request(order), heard, key=order.key)
        )

    def resume(self, order: Order, listener: Listener) -> Job:
        """Take up a job of an earlier session by its key or id; its rows come again from the first.

        Args:
            order: What was kept of the job; the daemon knows what it really asked for, and the job's
                ``request`` says so from ``submitted`` on.
            listener: Hears of the job, after the observers.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        return self._hand_in(order, listener, lambda heard: self._linked().resume(order.key, heard))

    def plan(
        self, order: Order, callback: Callable[[dict[str, Any] | None, ClientError | None], None]
    ) -> None:
        """Ask what a job would read, hold, write and take; a newer question replaces one that waits.

        Args:
            order: The job; it needs no output yet.
            callback: Called on the client's thread with the plan and None, or with None and the error.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq, or a path is not absolute.
        """
        self._linked().plan(_request(order), callback)

    def status(self, callback: Callable[[dict[str, Any] | None, ClientError | None], None]) -> None:
        """Ask how the daemon is and what jobs it knows; never starts it.

        Args:
            callback: Called on the client's thread with the ``daemon_status`` message and None, or with
                None and the error.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        self._linked().status(callback)

    def cancel(
        self, job_id: str, callback: Callable[[dict[str, Any] | None, ClientError | None], None]
    ) -> None:
        """End any job the daemon knows, by its id; called back as by :meth:`status`."""
        self._linked().cancel(job_id, callback)

    def delete(self, job_id: str, callback: Callable[[ClientError | None], None]) -> None:
        """Have the daemon forget a job that ended, by its id; what it wrote stays.

        Args:
            job_id: The daemon's id of the job.
            callback: Called on the client's thread with None once it is forgotten, or with the error.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq.
        """
        self._linked().delete(job_id, callback)

    def inbox(self, key: str) -> Path:
        """Return the folder for files of a job's own, made where missing; the daemon deletes it.

        Raises:
            ClientError: The Python of this QGIS has no pyzmq, or the folder cannot be made.
        """
        return self._linked().inbox(key)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the link; where nobody keeps it, the last holder closes it."""
        with self._lock:
            self._sessions += 1
        try:
            yield
        finally:
            with self._lock:
                self._sessions -= 1
                last = self._sessions == 0 and not self.keep_engine
            if last:
                self.close()

    def close(self) -> None:
        """Let go of the link without waiting for it; the daemon and its jobs go on. May be called twice."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            threading.Thread(target=engine.close, name="rest-close").start()

    def _hand_in(self, order: Order, listener: Listener, hand_in: Callable[[Any], Job]) -> Job:
        """Let the observers know of a job, and of its refusal; the asker is told that by the error."""
        from rest_qgis.client import ClientError

        observing = [made for made in (observer(order) for observer in self._observers) if made is not None]
        try:
            return hand_in(_FanOut([*observing, listener]))
        except ClientError as error:
            _FanOut(observing).failed(None, error.code, error.message)
            raise

    def _linked(self) -> Engine:
        from rest_qgis.client import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(command=backend_command, on_state=self._tell_state)
            return self._engine

    def _tell_state(self, state: EngineState) -> None:
        if self.on_state is not None:
            self.on_state(state)


def backend_command() -> str | None:
    """The user's setting of the command ``rest-backend``; None where there is none. For any thread."""
    return QgsSettings().value(BACKEND_SETTING, "", type=str) or None


def choose_backend(command: str) -> None:
    """Set the command ``rest-backend``; the next start of the daemon uses it."""
    QgsSettings().setValue(BACKEND_SETTING, command)


def _request(order: Order) -> JobRequest:
    from rest_qgis.client import JobRequest

    return JobRequest(
        scene=order.scene,
        model=order.model,
        output=order.output,
        window=order.window,
        device=order.device,
        memory_bytes=order.memory_bytes,
        title=order.title,
        bands=order.bands,
        aoi=order.aoi,
        resolution_m=order.resolution_m,
        context="nearby" if order.preview else "scene",
        confidence=order.confidence,
        probabilities=order.probabilities,
        abandon_seconds=order.abandon_seconds,
    )


class _FanOut:
    """Passes every event of a job to several listeners in turn."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def submitted(self, job: Any) -> None:
        for listener in self._listeners:
            listener.submitted(job)

    def progress(self, job: Any, progress: Any) -> None:
        for listener in self._listeners:
            listener.progress(job, progress)

    def rows(self, job: Any, rows: Any) -> None:
        for listener in self._listeners:
            listener.rows(job, rows)

    def done(self, job: Any, done: Any) -> None:
        for listener in self._listeners:
            listener.done(job, done)

    def failed(self, job: Any, code: str, message: str) -> None:
        for listener in self._listeners:
            listener.failed(job, code, message)
