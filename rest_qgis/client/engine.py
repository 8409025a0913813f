"""The engine as a script or the plugin uses it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from ..install.folder import home_folder
from .errors import ClientError
from .frames import encode
from .job import Done, Job, JobListener, JobRequest, new_key
from .jobs import job_fields, submit_fields
from .questions import PLAN_SECONDS, Question
from .schema import SchemaError
from .session import EngineState, Session

CLOSE_SECONDS = 1.0

Answered = Callable[[Optional[dict[str, Any]], Optional[ClientError]], None]
"""A callback on the client thread: the answer and None, or None and the error."""

_KEY = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,63}")  # one that no folder's name means elsewhere


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

    def segment(
        self, request: JobRequest, listener: JobListener | None = None, key: str | None = None
    ) -> Job:
        """Queue a segmentation; starts the daemon when it is not running.

        Args:
            request: What to segment.
            listener: Told what happens, on the client thread.
            key: A :func:`new_key` that was noted, so that :meth:`resume` finds the job later
                whatever happens; by default one is made.

        Returns:
            The job, at once.

        Raises:
            ClientError: ``E_REQUEST`` for a path that is not absolute or too
                long, or a number out of range; ``E_CLIENT_CLOSED``.
        """
        job = self._job(request, listener, key=_checked_key(key or new_key()))
        _check_paths(request, ("scene", "output"))
        _check_message("submit", **submit_fields(job))
        self._post(lambda: self._session.jobs.add(job))
        return job

    def resume(self, key: str, listener: JobListener | None = None) -> Job:
        """Come back to a job, of this session or an earlier one; starts the daemon when it is not running.

        ``submitted`` comes first, with ``job.request`` as the daemon has it; then all rows from
        the first on, progress, and ``done`` or ``failed`` as of any job. A job nobody knows any
        more fails with ``E_UNKNOWN_JOB``, one that this engine follows already with ``E_FOLLOWED``.

        Args:
            key: Its key or its id.
            listener: Told what happens, on the client thread.

        Returns:
            The job, at once.

        Raises:
            ClientError: ``E_REQUEST`` for what can be no key; ``E_CLIENT_CLOSED``.
        """
        job = self._job(JobRequest("", "", ""), listener, name=_checked_key(key))
        self._post(lambda: self._session.jobs.add(job))
        return job

    def inbox(self, key: str) -> Path:
        """The folder for the own files of a job to come, such as its area; made, for this user only.

        The daemon deletes it when the job of this key ends.

        Args:
            key: The key the job will be handed in with.

        Raises:
            ClientError: ``E_REQUEST`` for what can be no key; ``E_INBOX``: the folder cannot be made.
        """
        folder = self.home / "inbox" / _checked_key(key)
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ClientError(
                "E_INBOX", f"The engine's folder {folder} cannot be made: {error.strerror or error}."
            ) from error
        return folder

    def plan(self, request: JobRequest, callback: Answered) -> None:
        """Ask what a job would read, hold, write and take; starts the daemon when it is not running.

        Args:
            request: The job; its output may still be empty.
            callback: Called on the client thread with the plan, as ``rest-backend plan --json``
                prints it, and None; or with None and the error: ``E_REPLACED`` where a newer
                question came before the answer, else why nothing can be planned.

        Raises:
            ClientError: As of :meth:`segment`.
        """

        def answered(answer: dict[str, Any] | None, error: ClientError | None) -> None:
            callback(None if answer is None else answer["plan"], error)

        _check_paths(request, ("scene",))
        self._ask("plan", answered, {"job": job_fields(request)}, seconds=PLAN_SECONDS, replaces=True)

    def cancel(self, job: str, callback: Answered) -> None:
        """End a job of the list that :meth:`status` tells; one of this session also by ``Job.cancel``.

        Args:
            job: Its id.
            callback: Called on the client thread with the job's ``job_status`` message and None,
                or with None and the error.

        Raises:
            ClientError: ``E_REQUEST`` for what can be no id; ``E_CLIENT_CLOSED``.
        """
        self._ask("cancel", callback, {"job": _checked_key(job)})

    def delete(self, job: str, callback: Callable[[ClientError | None], None]) -> None:
        """Have the daemon forget a job that ended, and its rows; the files it wrote stay.

        Args:
            job: Its id.
            callback: Called on the client thread with None once the daemon does not know the
                job (any more), or with the error.

        Raises:
            ClientError: ``E_REQUEST`` for what can be no id; ``E_CLIENT_CLOSED``.
        """

        def answered(_: dict[str, Any] | None, error: ClientError | None) -> None:
            callback(None if error is not None and error.code == "E_UNKNOWN_JOB" else error)

        self._ask("delete", answered, {"job": _checked_key(job)})

    def models(self, callback: Callable[[list[dict[str, Any]] | None, ClientError | None], None]) -> None:
        """Ask for the installed models; starts the daemon when it is not running.

        Args:
            callback: Called on the client thread with the list, bundled models
                first, and None; or with None and the error.
        """

        def answered(answer: dict[str, Any] | None, error: ClientError | None) -> None:
            callback(None if answer is None else answer["models"], error)

        self._ask("list_models", answered)

    def status(self, callback: Answered) -> None:
        """Ask how the daemon is; never starts it.

        Args:
            callback: Called on the client thread with the ``daemon_status`` message
                (version, devices, jobs) and None; or with None and the error,
                ``E_ENGINE_STOPPED`` when none is running.
        """
        self._ask("status", callback, launch=False)

    def shutdown(self, callback: Callable[[ClientError | None], None] | None = None) -> None:
        """End the daemon, whoever started it; its jobs go on when it is started again.

        Args:
            callback: Called on the client thread with None once the process is
                gone (or none was running), or with the error.
        """

        def ended(_: dict[str, Any] | None, error: ClientError | None) -> None:
            if callback is not None:
                callback(error)

        self._ask("shutdown", ended, launch=False)

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

    def _job(self, request: JobRequest, listener: JobListener | None, key: str = "", name: str = "") -> Job:
        jobs = self._session.jobs
        return Job(
            request,
            listener,
            cancel=lambda job: self._post_quietly(lambda: jobs.cancel(job)),
            grant=lambda job, blocks: self._post_quietly(lambda: jobs.grant(job, blocks)),
            key=key,
            name=name,
        )

    def _ask(
        self,
        kind: str,
        callback: Answered,
        fields: dict[str, Any] | None = None,
        launch: bool = True,
        **how: Any,
    ) -> None:
        fields = fields or {}
        _check_message(kind, **fields)
        self._post(lambda: self._session.ask(Question(kind, callback, launch, fields, **how)))

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


def _check_paths(request: JobRequest, needed: tuple[str, ...]) -> None:
    for name in ("scene", "output", "aoi", "confidence", "probabilities"):
        path = getattr(request, name)
        if (path or name in needed) and not Path(path).is_absolute():
            raise ClientError("E_REQUEST", f"The path of the {name} must be absolute: {path!r}.")


def _check_message(kind: str, **fields: Any) -> None:
    try:
        encode({"type": kind, **fields})
    except SchemaError as error:
        raise ClientError("E_REQUEST", f"This cannot be sent to the engine: {error}.") from error


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ClientError("E_REQUEST", f"{key!r} names no job.")
    return key


def _ignore(_: EngineState) -> None:
    pass
