"""All jobs of a client: what the daemon says about them, and what it is told.

The table outlives links. Whenever a new link is up, every unfinished job is
announced again: submitted with its key when the daemon never acknowledged it,
else watched, and its rows attached to from the next number. The daemon's journal
makes both harmless, so nothing is lost and nothing is done twice.

A job of an earlier session is *taken up*: watched by its key, or where that is
unknown by its id; the answer says what it is, then it is a job like the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from .callbacks import tell
from .errors import ClientError
from .job import Done, Job, JobRequest, Progress

RESYNC_SECONDS = 2.0  # without a row that must be under way, before rows are asked for again
STRIKES = 3  # faults in a row of one job's rows before it is given up

_log = logging.getLogger("rest_qgis.client")


class JobTable:
    """The jobs, driven by the client thread.

    Args:
        send: Sends a message: channel (``control`` or ``data``), type, fields;
            returns the request identifier. It does nothing while there is no link.
    """

    def __init__(self, send: Callable[..., str]) -> None:
        self._send = send
        self._jobs: list[Job] = []
        self._by_id: dict[str, Job] = {}
        self._asked: dict[str, tuple[Job, str]] = {}  # by request; for refusals
        self._states: dict[Job, _Follow] = {}
        self._linked = False

    @property
    def unfinished(self) -> list[Job]:
        """Jobs that have not ended."""
        return [job for job in self._jobs if not job.ended]

    def add(self, job: Job) -> None:
        """A job to be submitted, or taken up, as soon as there is a link."""
        followed = any(_names(job) & _names(other) for other in self._jobs)
        self._jobs.append(job)
        self._states[job] = _Follow()
        if followed:
            self._end(job, _followed())
        elif self._linked:
            self._announce(job)

    def link_up(self) -> None:
        """A daemon said welcome."""
        self._linked = True
        self._asked.clear()
        for job in self.unfinished:
            self._announce(job)

    def link_down(self) -> None:
        """The link is gone; jobs go on in the daemon or in its journal."""
        self._linked = False

    def cancel(self, job: Job) -> None:
        """Ask for the end of a job, now or once the daemon knows it."""
        if job.ended:
            return
        follow = self._states[job]
        if follow.done is not None:  # too late: the result is there, only rows nobody waits for are missing
            self._finish(job, follow.done)
            return
        follow.cancelling = True
        if job.id:
            self._ask(job, "control", "cancel", job=job.id)
        elif not follow.announced and not job.name:
            self._end(job, ClientError("E_CANCELLED", "The job was cancelled."))

    def grant(self, job: Job, blocks: int) -> None:
        """Give a job credit by hand."""
        if not job.ended:
            job.stream.grant(blocks)
            self._give_credit(job)

    def fail_all(self, error: ClientError) -> None:
        """End every unfinished job with the same error."""
        for job in self.unfinished:
            self._end(job, error)

    def abandon_all(self, error: ClientError) -> None:
        """End every unfinished job here, because the client ends; the daemon goes on with those it took."""
        for job in self.unfinished:
            fate = "The engine goes on with the job." if job.name else "The engine had not taken the job yet."
            if job.request.output and job.id:
                fate = f"The engine goes on with the job and will write {job.request.output}."
            self._end(job, ClientError(error.code, f"{error.message} {fate}"))

    def tick(self, now: float) -> None:
        """Ask again for rows that should have come.

        Args:
            now: ``time.monotonic()``.
        """
        if not self._linked:
            return
        for job in self.unfinished:
            follow = self._states[job]
            waiting = follow.done is not None or job.stream.syncing
            if waiting and job.stream.expecting and now - follow.last_row > RESYNC_SECONDS:
                missing = ClientError("E_SEQUENCE", f"Result block {job.stream.next_seq} does not come.")
                self._strike(job, follow.fault or missing)

    def handle(self, message: dict[str, Any], payload: bytes | None) -> bool:
        """Take a message about a job.

        Args:
            message: Checked header.
            payload: Binary frame of ``rows``.

        Returns:
            Whether the message was about a job of this table.
        """
        kind = message["type"]
        if kind == "error":
            return self._refused(message)
        asker, _ = self._asked.get(message.get("request", ""), (None, ""))
        if kind == "job_status" and asker is not None and not asker.id:
            self._take_up(asker, message)
            return True
        if kind == "submitted":
            job = next((job for job in self._jobs if job.key == message["key"]), None)
        else:
            job = self._by_id.get(message.get("job", ""))
        handler = getattr(self, "_on_" + kind, None)
        if job is None or handler is None:
            return False
        if not job.ended:
            if kind == "rows":
                handler(job, message, payload)
            else:
                handler(job, message)
        return True

    # --- what the daemon says

    def _on_submitted(self, job: Job, message: dict[str, Any]) -> None:
        self._asked.pop(message["request"], None)
        if job.id:
            return
        if message["job"] in self._by_id:  # it was also taken up, by its id
            self._end(job, _followed())
            return
        job.id = message["job"]
        self._by_id[job.id] = job
        job.state = "queued"
        _tell(job, "submitted")
        self._attach(job)
        if self._states[job].cancelling:
            self._ask(job, "control", "cancel", job=job.id)
        if message["state"] not in ("queued", "running"):
            # The answer to an earlier submit was lost and the job is over: its events were sent to nobody.
            self._ask(job, "control", "watch", job=job.id)

    def _take_up(self, job: Job, message: dict[str, Any]) -> None:
        """The answer about a job of an earlier session: it becomes one of this."""
        if message["job"] in self._by_id:
            self._end(job, _followed())
            return
        job.id, job.key = message["job"], message.get("key", "")
        job.request = asked_request(message)
        self._by_id[job.id] = job
        job.state = "running" if message["state"] == "running" else "queued"
        _tell(job, "submitted")
        if message["state"] not in ("failed", "cancelled"):
            self._attach(job)
        self._on_job_status(job, message)
        if not job.ended and self._states[job].cancelling:
            self.cancel(job)

    def _on_job_status(self, job: Job, message: dict[str, Any]) -> None:
        self._asked.pop(message["request"], None)
        state = message["state"]
        if state == "done":
            self._on_done(job, dict(message, seq=message.get("next_seq", 0)))
        elif state == "failed":
            self._end(job, ClientError(message.get("code", ""), message.get("message", "")))
        elif state == "cancelled":
            self._end(job, ClientError("E_CANCELLED", message.get("message") or "The job was cancelled."))
        else:
            job.state = state

    def _on_progress(self, job: Job, message: dict[str, Any]) -> None:
        job.state = "queued" if message["stage"] == "queued" else "running"
        progress = Progress(
            stage=message["stage"],
            rows_done=message["rows_done"],
            rows=message["rows"],
            rows_per_second=message.get("rows_per_second", 0.0),
            eta_seconds=message.get("eta_seconds"),
            device=message.get("device", ""),
            memory_bytes=message.get("memory_bytes", 0),
            note=message.get("note", ""),
        )
        _tell(job, "progress", progress)

    def _on_done(self, job: Job, message: dict[str, Any]) -> None:
        follow = self._states[job]
        if follow.done is None:
            follow.done = Done(message["output"], message.get("summary", {}), message["seq"])
            follow.last_row = time.monotonic()
        self._finish_if_complete(job)

    def _on_failed(self, job: Job, message: dict[str, Any]) -> None:
        self._end(job, ClientError(message["code"], message["message"]))

    def _on_rows(self, job: Job, message: dict[str, Any], payload: bytes) -> None:
        follow = self._states[job]
        try:
            rows = job.stream.accept(message, payload)
        except ClientError as error:
            self._strike(job, error)
            return
        if rows is None:
            return
        follow.strikes, follow.fault, follow.last_row = 0, None, time.monotonic()
        _tell(job, "rows", rows)
        job.stream.consumed()
        self._give_credit(job)
        self._finish_if_complete(job)

    def _refused(self, message: dict[str, Any]) -> bool:
        error = ClientError(message["code"], message["message"])
        job, asked = self._asked.pop(message.get("request", ""), (None, ""))
        if job is None:
            job = self._by_id.get(message.get("job", ""))
            if job is not None:
                self._strike(job, error)  # only credit is not remembered: asking for the rows anew mends it
        elif not job.id and job.name and error.code == "E_UNKNOWN_JOB" and not self._states[job].by_id:
            self._states[job].by_id = True
            self._ask(job, "control", "watch", job=job.name)
        elif asked == "cancel" and error.code != "E_UNKNOWN_JOB":
            _log.warning("job %s: cancel refused: %s", job.id, error.message)  # it ends otherwise
        else:
            self._end(job, error)
        return job is not None

    # --- what the daemon is told

    def _announce(self, job: Job) -> None:
        follow = self._states[job]
        follow.announced = True
        if not job.id and job.name:
            follow.by_id = False
            self._ask(job, "control", "watch", key=job.name)
            return
        if not job.id:
            self._ask(job, "control", "submit", **submit_fields(job))
            return
        self._ask(job, "control", "watch", job=job.id)
        if follow.cancelling:
            self._ask(job, "control", "cancel", job=job.id)
        self._attach(job)

    def _attach(self, job: Job) -> None:
        self._states[job].last_row = time.monotonic()
        self._ask(job, "data", "attach", job=job.id, seq=job.stream.next_seq, credit=job.stream.attach())

    def _give_credit(self, job: Job) -> None:
        if not (self._linked and job.id):
            return  # attaching will carry it
        credit = job.stream.due()
        if credit > 0:
            self._ask(job, "data", "credit", job=job.id, credit=credit)
            self._states[job].last_row = time.monotonic()

    def _ask(self, job: Job, channel: str, kind: str, /, **fields: Any) -> None:
        request = self._send(channel, kind, **fields)
        # Credit is sent for every block of rows and never answered: too many to remember.
        if request and kind != "credit":
            self._asked[request] = (job, kind)

    # --- ends and faults

    def _strike(self, job: Job, error: ClientError) -> None:
        follow = self._states[job]
        follow.strikes += 1
        follow.fault = error
        _log.warning("job %s: %s %s", job.id, error.code, error.message)
        if follow.strikes >= STRIKES:
            told = (
                f"{error.message} This happened {STRIKES} times, so the job was given up here. The engine "
                f"goes on with it and may still write {job.request.output}."
            )
            self._end(job, ClientError(error.code, told))
            return
        job.stream.syncing = True
        self._attach(job)

    def _finish_if_complete(self, job: Job) -> None:
        done = self._states[job].done
        if done is not None and job.stream.next_seq >= done.seq:
            self._finish(job, done)

    def _finish(self, job: Job, done: Done) -> None:
        job.finish("done", result=done)
        _tell(job, "done", done)
        self._forget(job)

    def _end(self, job: Job, error: ClientError) -> None:
        job.finish("cancelled" if error.code == "E_CANCELLED" else "failed", error=error)
        _tell(job, "failed", error.code, error.message)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._jobs.remove(job)
        self._by_id.pop(job.id, None)
        del self._states[job]
        for request in [request for request, (asker, _) in self._asked.items() if asker is job]:
            del self._asked[request]
        job.release()


class _Follow:
    """What the table remembers of a job."""

    def __init__(self) -> None:
        self.announced = False  # a submit was sent, so the daemon may know the job
        self.by_id = False  # no job has this key; it is looked for by its id
        self.cancelling = False
        self.done: Done | None = None  # the daemon is done, rows are still to come
        self.last_row = 0.0  # time.monotonic()
        self.strikes = 0
        self.fault: ClientError | None = None


def submit_fields(job: Job) -> dict[str, Any]:
    """The fields of a ``submit`` message."""
    return {"key": job.key, "job": job_fields(job.request), "abandon_seconds": job.request.abandon_seconds}


def job_fields(request: JobRequest) -> dict[str, Any]:
    """A request as the field ``job`` of a message."""
    return {
        "scene": request.scene,
        "model": request.model,
        "output": request.output,
        "window": None if request.window is None else list(request.window),
        "device": request.device,
        "memory_bytes": request.memory_bytes,
        "title": request.title,
        "bands": list(request.bands),
        "aoi": request.aoi,
        "resolution_m": request.resolution_m,
        "context": request.context,
        "confidence": request.confidence,
        "probabilities": request.probabilities,
    }


def asked_request(status: dict[str, Any]) -> JobRequest:
    """What a job was asked for, from a ``job_status`` message."""
    asked = status.get("asked") or {name: status[name] for name in ("scene", "model", "output")}
    window = asked.get("window")
    return JobRequest(
        scene=asked["scene"],
        model=asked["model"],
        output=asked["output"],
        window=None if window is None else tuple(window),
        device=asked.get("device", "auto"),
        memory_bytes=asked.get("memory_bytes", 0),
        title=asked.get("title", ""),
        bands=tuple(asked.get("bands", ())),
        aoi=asked.get("aoi", ""),
        resolution_m=asked.get("resolution_m", 0.0),
        context=asked.get("context", "scene"),
        confidence=asked.get("confidence", ""),
        probabilities=asked.get("probabilities", ""),
    )


def _names(job: Job) -> set[str]:
    return {job.key, job.id, job.name} - {""}


def _followed() -> ClientError:
    return ClientError("E_FOLLOWED", "This job is followed here already.")


def _tell(job: Job, method: str, *arguments: Any) -> None:
    if job.listener is not None:
        tell(getattr(job.listener, method), job, *arguments)
