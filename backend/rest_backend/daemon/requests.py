"""What clients ask for: every request of both sockets and its answer."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from rest_backend import __version__
from rest_backend.daemon.answers import brief_status, job_status
from rest_backend.daemon.inbox import check_key
from rest_backend.daemon.jobs import Jobs
from rest_backend.daemon.journal import JobRecord, Journal
from rest_backend.daemon.planner import Planner
from rest_backend.daemon.sessions import Attachments, ControlSessions
from rest_backend.daemon.supervisor import Supervisor
from rest_backend.errors import InputError
from rest_backend.models import zoo
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    PROTOCOL,
    Attach,
    Cancel,
    Credit,
    DaemonStatus,
    Delete,
    Deleted,
    Goodbye,
    Hello,
    ListModels,
    Models,
    Plan,
    Request,
    SegmentJob,
    Shutdown,
    Status,
    Submit,
    Submitted,
    Watch,
    Welcome,
)

_log = logging.getLogger(__name__)

MODELS_LIMIT = 256
_LISTED_JOBS = 200  # ended ones; more never fit
_STATUS_BYTES = HEADER_LIMIT // 2
_LEFT_OUT_BYTES = 32  # room for the digits of the count
_DEVICE = re.compile(r"auto|cpu|cuda:\d{1,3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Requests:
    """Answers the requests of all clients; errors are the caller's to tell.

    Args:
        boot: Of this daemon.
        home: Its folder.
        journal: The open journal.
        jobs: Queue and running jobs.
        planner: Who answers plans.
        supervisor: Who knows the devices.
        sessions: Clients of the control socket.
        attachments: Clients of the data socket.
        stop: Called when a client ends the daemon.
    """

    def __init__(
        self,
        boot: str,
        home: Path,
        journal: Journal,
        jobs: Jobs,
        planner: Planner,
        supervisor: Supervisor,
        sessions: ControlSessions,
        attachments: Attachments,
        stop: Callable[[], None],
    ) -> None:
        self._boot = boot
        self._home = home
        self._journal = journal
        self._jobs = jobs
        self._planner = planner
        self._supervisor = supervisor
        self._sessions = sessions
        self._attachments = attachments
        self._stop = stop
        self._started = time.monotonic()
        self.dropped = 0  # messages that were not understood

    def on_control(self, peer: bytes, message: Request) -> None:
        """Answer a request of the control socket.

        Raises:
            RestError: It is refused.
        """
        if isinstance(message, Hello):
            self._hello(peer, message)
            return
        if not self._sessions.greeted(peer):
            raise InputError("E_HELLO", "The first message of a session is hello.")
        if isinstance(message, Submit):
            self._submit(peer, message)
        elif isinstance(message, Status):
            self._status(peer, message)
        elif isinstance(message, Watch):
            record = self._jobs.find(message.job) if message.job else self._jobs.find_key(message.key)
            self._watch(peer, record)
            self._answer_status(peer, message, record)
            self._catch_up(peer, record)
        elif isinstance(message, Cancel):
            self._cancel(peer, message)
        elif isinstance(message, Delete):
            self._jobs.delete(message.job)
            self._attachments.forget_job(message.job)
            self._sessions.send(peer, Deleted(request=message.request, job=message.job))
        elif isinstance(message, Plan):
            check_job(message.job, planned=True)
            self._planner.ask(peer, message.request, message.job, time.monotonic())
        elif isinstance(message, ListModels):
            self._list_models(peer, message)
        elif isinstance(message, Shutdown):
            _log.info("a client ends the engine")
            self._sessions.send(
                peer, Goodbye(request=message.request, code="E_SHUTDOWN", message="The engine ends.")
            )
            self._stop()
        else:
            raise InputError("E_WRONG_SOCKET", "This message belongs on the data socket.")

    def on_data(self, peer: bytes, message: Request) -> None:
        """Follow a request of the data socket.

        Raises:
            RestError: It is refused.
        """
        if isinstance(message, Attach):
            record = self._jobs.find(message.job)
            if record.state in ("failed", "cancelled"):
                raise InputError(record.code, record.message)
            self._attachments.attach(peer, record.id, message.seq, message.credit)
        elif isinstance(message, Credit):
            if not self._attachments.grant(peer, message.job, message.credit):
                self._jobs.find(message.job)
                raise InputError("E_NOT_ATTACHED", "Credit is for jobs this client attached to.")
        else:
            raise InputError("E_WRONG_SOCKET", "This message belongs on the control socket.")

    def _hello(self, peer: bytes, message: Hello) -> None:
        lowest, highest = message.protocols
        if not lowest <= PROTOCOL <= highest:
            self._sessions.send(
                peer,
                Goodbye(
                    request=message.request,
                    code="E_PROTOCOL",
                    message=f"The engine {__version__} speaks protocol {PROTOCOL}, the plugin {lowest} to"
                    f" {highest}; update the older of the two.",
                ),
            )
            return
        self._sessions.greet(peer)
        self._sessions.send(
            peer, Welcome(request=message.request, protocol=PROTOCOL, version=__version__, boot=self._boot)
        )

    def _submit(self, peer: bytes, message: Submit) -> None:
        check_key(message.key)
        check_job(message.job)
        record = self._jobs.submit(message.key, message.job, message.abandon_seconds)
        self._watch(peer, record)
        self._sessions.send(
            peer, Submitted(request=message.request, job=record.id, key=record.key, state=record.state)
        )
        self._catch_up(peer, record)

    def _status(self, peer: bytes, message: Status) -> None:
        if message.job:
            self._answer_status(peer, message, self._jobs.find(message.job))
            return
        unfinished = self._journal.jobs("queued", "running")
        listed, size = [], 0
        for record in [*unfinished, *self._journal.latest_ended(_LISTED_JOBS)]:
            status = brief_status(record)
            size += len(frames.encode(status)[1])
            if size > _STATUS_BYTES:
                break
            listed.append(status)
        self._sessions.send(
            peer,
            DaemonStatus(
                request=message.request,
                version=__version__,
                boot=self._boot,
                pid=os.getpid(),
                uptime_seconds=time.monotonic() - self._started,
                devices=self._supervisor.devices(),
                jobs=listed,
                dropped=self.dropped,
            ),
        )

    def _cancel(self, peer: bytes, message: Cancel) -> None:
        record = self._jobs.note_cancel(message.job)
        self._watch(peer, record)
        # The wish is journaled; its answer comes before the event, also when the job ends at once.
        self._answer_status(peer, message, record)
        if record.state in ("queued", "running"):
            self._jobs.cancel(record)
        else:
            self._catch_up(peer, record)

    def _list_models(self, peer: bytes, message: ListModels) -> None:
        answer = Models(request=message.request, models=[])
        size = len(frames.encode(answer)[1]) + _LEFT_OUT_BYTES
        for model in zoo.list_models(self._home):
            brief = zoo.brief(model)
            # One byte is the comma.
            needed = len(msgspec.json.encode(brief)) + 1
            if size + needed > HEADER_LIMIT or len(answer.models) == MODELS_LIMIT:
                answer.left_out += 1
                continue
            size += needed
            answer.models.append(brief)
        self._sessions.send(peer, answer)

    def _watch(self, peer: bytes, record: JobRecord) -> None:
        if record.state in ("queued", "running"):
            self._sessions.watch(peer, record.id)

    def _catch_up(self, peer: bytes, record: JobRecord) -> None:
        event = self._jobs.latest_event(record)
        if event is not None:
            self._sessions.send(peer, event)

    def _answer_status(self, peer: bytes, message: Request, record: JobRecord) -> None:
        status = job_status(record)
        status.request = message.request
        self._sessions.send(peer, status)


def check_job(job: SegmentJob, *, planned: bool = False) -> None:
    """Refuse a job that no operation could take.

    Args:
        job: What a client asks for.
        planned: It only asks for a plan, and may not know the output yet.

    Raises:
        InputError: ``E_PATH``, ``E_WINDOW``, ``E_DEVICE``.
    """
    optional = {"aoi", "confidence", "probabilities", *(("output",) if planned else ())}
    for name in ("scene", "model", "output", "aoi", "confidence", "probabilities"):
        text: str = getattr(job, name)
        if not text and name in optional:
            continue
        if not text or _CONTROL.search(text) or len(text.encode("utf-8")) > 4096:
            reason = "is empty, too long or holds control characters"
            raise InputError("E_PATH", f"The {name} {text[:80]!r} {reason}.")
        if name != "model" and not Path(text).is_absolute():
            raise InputError("E_PATH", f"The {name} {text[:80]!r} is no absolute path.")
    if job.window is not None and not (job.window[2] and job.window[3]):
        raise InputError("E_WINDOW", "The area has no pixels.")
    if not _DEVICE.fullmatch(job.device):
        raise InputError("E_DEVICE", f"The device {job.device[:80]!r} is none of auto, cpu, cuda:N.")
