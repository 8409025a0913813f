"""The engine as a script or the plugin uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..install.folder import home_folder
from .errors import ClientError
from .frames import encode
from .job import Done, Job, JobListener, JobRequest
from .jobs import job_fields
from .schema import SchemaError
from .session import EngineState, Request, Session

CLOSE_SECONDS = 1.0


class Engine:
    """The engine of one home, found or started on demand.

    No method waits except :meth:`wait` and, for at most a second, :meth:`close`.
    Whatever is asked before the daemon is up is done once it is.

    Args:
        home: The daemon's home; by default the variable ``REST_HOME``, else a
            folder in the user's data.
        command: The command ``rest-backend`` where the variable ``REST_BACKEND``
            is not set, or a function that tells it (or None) on the client thread
            at every start of the daemon; by default that of the install folder.
        on_state: Told every change of the engine's state, on the client thread.

    Raises:
        ClientError: ``E_ZMQ_MISSING``.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        command: str | Path | Callable[[], str | None] | None = None,
        on_state: Callable[[EngineState], None] | None = None,
    ) -> None:
        self.home = Path(home).expanduser().absolute() if home is not None else home_folder().absolute()
        named = str(command) if command and not callable(command) else None
        self._session = Session(
            self.home, command if callable(command) else lambda: named, on_state or _ignore
        )
        self._closed = False
        self._running = False
        self._lock = threading.Lock()

    @property
    def state(self) -> EngineState:
        """The last state, as ``on_state`` was told."""
        return self._session.state

    def start(self) -> None:
        """Have the daemon running; returns at once, ``on_state`` tells how it goes."""
        self._post(self._session.want)

    def segment(self, request: JobRequest, listener: JobListener | None = None) -> Job:
        """Queue a segmentation; starts the daemon when it is not running.

        Args:
            request: What to segment.
            listener: Told what happens, on the client thread.

        Returns:
            The job, at once.

        Raises:
            ClientError: ``E_REQUEST`` for a path that is not absolute or too
                long, or a number out of range; ``E_CLIENT_CLOSED``.
        """
        session = self._session
        job = Job(
            request,
            listener,
            cancel=lambda job: self._post_quietly(lambda: session.jobs.cancel(job)),
            grant=lambda job, blocks: self._post_quietly(lambda: session.jobs.grant(job, blocks)),
        )
        _check(job)
        self._post(lambda: session.jobs.add(job))
        return job

    def models(self, callback: Callable[[list[dict[str, Any]] | None, ClientError | None], None]) -> None:
        """Ask for the installed models; starts the daemon when it is not running.

        Args:
            callback: Called on the client thread with the list, bundled models
                first, and None; or with None and the error.
        """

        def answered(answer: dict[str, Any] | None, error: ClientError | None) -> None:
            callback(None if answer is None else answer["models"], error)

        self._post(lambda: self._session.ask(Request("list_models", answered, launch=True)))

    def status(self, callback: Callable[[dict[str, Any] | None, ClientError | None], None]) -> None:
        """Ask how the daemon is; never starts it.

        Args:
            callback: Called on the client thread with the ``daemon_status`` message
                (version, devices, jobs) and None; or with None and the error,
                ``E_ENGINE_STOPPED`` when none is running.
        """
        self._post(lambda: self._session.ask(Request("status", callback, launch=False)))

    def shutdown(self, callback: Callable[[ClientError | None], None] | None = None) -> None:
        """End the daemon, whoever started it; its jobs go on when it is started again.

        Args:
            callback: Called on the client thread with None once the process is
                gone (or none was running), or with the error.
        """

        def ended(_: dict[str, Any] | None, error: ClientError | None) -> None:
            if callback is not None:
                callback(error)

        self._post(lambda: self._session.ask(Request("shutdown", ended, launch=False)))

    def wait(self, job: Job, timeout: float | None = None) -> Done | None:
        """Wait for a job's end, in a script or a background task, never on a GUI's thread.

        Args:
            job: A job of this engine.
            timeout: Longest wait in seconds; None waits for ever.

        Returns:
            The result, or None when the time is over and the job is not.

        Raises:
            ClientError: The job failed or was cancelled (``E_CANCELLED``).
            RuntimeError: Called on the client thread, where it would never end.
        """
        if threading.current_thread() is self._session:
            raise RuntimeError("Engine.wait() was called by a listener")
        if not job.wait(timeout):
            return None
        if job.error is not None:
            raise job.error
        return job.result

    def close(self) -> None:
        """Close the link, within a second; the daemon and its jobs go on.

        Jobs of this client that did not end are told ``failed`` with
        ``E_CLIENT_CLOSED``, open questions are answered with the same error.
        """
        with self._lock:
            already, self._closed = self._closed, True
        if already:
            return
        if not self._running:
            self._session.start()  # so that the sockets are closed by the thread they belong to
        self._session.close(CLOSE_SECONDS)

    def __enter__(self) -> Engine:
        """The engine itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the link."""
        self.close()

    def _post(self, command: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise ClientError("E_CLIENT_CLOSED", "The link to the engine is closed.")
            if not self._running:
                self._running = True
                self._session.start()
            self._session.post(command)

    def _post_quietly(self, command: Callable[[], None]) -> None:
        """For jobs that outlive the link: there is nothing left to be told."""
        try:
            self._post(command)
        except ClientError as error:
            if error.code != "E_CLIENT_CLOSED":
                raise


def _check(job: Job) -> None:
    request = job.request
    for name in ("scene", "output"):
        path = getattr(request, name)
        if not Path(path).is_absolute():
            raise ClientError("E_REQUEST", f"The path of the {name} must be absolute: {path!r}.")
    try:
        encode({"type": "submit", "key": job.key, "job": job_fields(job)})
    except SchemaError as error:
        raise ClientError("E_REQUEST", f"The job cannot be sent to the engine: {error}.") from error


def _ignore(_: EngineState) -> None:
    pass
