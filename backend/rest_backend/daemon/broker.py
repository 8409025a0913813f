"""The broker: every client socket, the journal and the queue, in one light process.

It imports neither torch nor rasterio nor numpy; what can crash, leak or hang lives in
workers. One thread polls two ROUTER sockets and the workers' inbox; nothing in
the loop waits for a client or a worker.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from types import TracebackType

import msgspec
import zmq

from rest_backend import __version__
from rest_backend.daemon import link
from rest_backend.daemon.home import Home
from rest_backend.daemon.jobs import Jobs, job_status
from rest_backend.daemon.journal import JobRecord, Journal
from rest_backend.daemon.links import Links
from rest_backend.daemon.security import Authenticator, bind_router, load_or_make_keys, self_attack
from rest_backend.daemon.sessions import Attachments, ControlSessions
from rest_backend.daemon.supervisor import Gone, Supervisor, Worker
from rest_backend.errors import InputError, ResourceError, RestError
from rest_backend.models import zoo
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    PROTOCOL,
    Attach,
    Cancel,
    Credit,
    DaemonStatus,
    Done,
    Error,
    Failed,
    Goodbye,
    Hello,
    ListModels,
    Message,
    Models,
    Request,
    Shutdown,
    Status,
    Submit,
    Submitted,
    Watch,
    Welcome,
)

_log = logging.getLogger(__name__)

_REQUESTS_A_TURN = 64
MODELS_LIMIT = 256
_STATUS_BYTES = HEADER_LIMIT // 2
_LEFT_OUT_BYTES = 32  # room for the digits of the count


class Broker:
    """A daemon that listens; use it as a context manager, then :meth:`run` it.

    Args:
        home: Its folders, prepared and locked.
        idle_seconds: It ends after this long without jobs and clients.
    """

    def __init__(self, home: Home, idle_seconds: float) -> None:
        self.boot = secrets.token_hex(8)
        self._home = home
        self._idle_seconds = idle_seconds
        self._started = time.monotonic()
        self._stop = False
        self._dropped = 0

    def __enter__(self) -> Broker:
        """Bind, attack ourselves, take up old jobs.

        Raises:
            RestError: ``E_KEYS``, ``E_JOURNAL``, ``E_SELF_ATTACK``.
        """
        self.server_keys = load_or_make_keys(self._home.keys / "server.json")
        self.client_keys = load_or_make_keys(self._home.keys / "client.json")
        self._journal = Journal(self._home.journal)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator = Authenticator(self._context, frozenset({self.client_keys.public}))
        try:
            self._control = self._bind()
            self._data = self._bind()
            self._control_links = Links(self._control)
            self._data_links = Links(self._data)
            self._supervisor = Supervisor(self._context, self._home.folder, self._home.log)
            self._sessions = ControlSessions(self._control)
            self._jobs = Jobs(self._journal, self._supervisor, self._home, self._emit, self._rows_ready)
            self._attachments = Attachments(self._data, self._journal, self._jobs.rows_path)
            self._jobs.recover()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.broadcast(Goodbye(code="E_SHUTDOWN", message="The engine ends."))
        self._jobs.wind_down()
        for _ in range(20):  # a client that was slow to read still gets its goodbye, one that hangs does not
            if self._sessions.flush():
                break
            time.sleep(0.02)
        self._close()

    @property
    def control_address(self) -> str:
        """Where clients send requests."""
        return self._control.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def data_address(self) -> str:
        """Where clients receive rows."""
        return self._data.getsockopt_string(zmq.LAST_ENDPOINT)

    def stop(self) -> None:
        """Make :meth:`run` return soon; may be called by a signal handler."""
        self._stop = True

    def run(self) -> None:
        """Serve until asked to stop, or idle for too long."""
        poller = zmq.Poller()
        monitors = (self._control_links.monitor, self._data_links.monitor)
        for socket in (self._control, self._data, self._supervisor.inbox, *monitors):
            poller.register(socket, zmq.POLLIN)
        busy_at = time.monotonic()
        more = False
        while not self._stop:
            poller.poll(0 if more else self._patience())
            now = time.monotonic()
            self._follow_links()
            for worker, message in self._supervisor.receive(now):
                self._from_worker(worker, message)
            for _ in range(_REQUESTS_A_TURN):
                if not (self._take(self._control) | self._take(self._data)):
                    break
            self._supervisor.tick(now)
            self._jobs.tick(now)
            self._sessions.flush()
            more = self._attachments.pump()
            if self._control_links.any or any(worker.job for worker in self._supervisor.live()):
                busy_at = now
            elif now - busy_at > self._idle_seconds and not self._jobs.unfinished:
                _log.info("nobody needs the engine; it ends")
                return
            if not self._authenticator.alive:
                raise ResourceError("E_SELF_ATTACK", "The thread that checks keys ended.")

    # --- requests -----------------------------------------------------------------------------

    def _take(self, socket: zmq.Socket[bytes]) -> bool:
        """Handle one message of a socket; False when there is none."""
        received = _receive(socket)
        if received is None:
            return False
        peer, descriptor, parts = received
        control = socket is self._control
        (self._control_links if control else self._data_links).note(peer, descriptor)
        try:
            message = frames.decode_request(parts)
        except frames.WireError as error:
            self._dropped += 1
            _log.info("message dropped: %s", error.code)
            if error.request:
                self._tell(control, peer, _error(error, error.request))
            return True
        try:
            if control:
                self._on_control(peer, message)
            else:
                self._on_data(peer, message)
        except RestError as error:
            named = "" if isinstance(message, Submit) else getattr(message, "job", "")
            self._tell(control, peer, _error(error, message.request, named))
        except Exception:  # noqa: BLE001 - the boundary: one request must not end the daemon
            _log.exception("request failed")
            sentence = f"The engine made a mistake; its log is {self._home.log / 'daemon.log'}."
            self._tell(control, peer, Error(request=message.request, code="E_INTERNAL", message=sentence))
        return True

    def _on_control(self, peer: bytes, message: Request) -> None:
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
            record = self._jobs.find(message.job)
            self._watch(peer, record)
            self._answer_status(peer, message, record)
            self._catch_up(peer, record)
        elif isinstance(message, Cancel):
            self._cancel(peer, message)
        elif isinstance(message, ListModels):
            self._list_models(peer, message)
        elif isinstance(message, Shutdown):
            _log.info("a client ends the engine")
            self._sessions.send(
                peer, Goodbye(request=message.request, code="E_SHUTDOWN", message="The engine ends.")
            )
            self._stop = True
        else:
            raise InputError("E_WRONG_SOCKET", "This message belongs on the data socket.")

    def _on_data(self, peer: bytes, message: Request) -> None:
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
            peer, Welcome(request=message.request, protocol=PROTOCOL, version=__version__, boot=self.boot)
        )

    def _submit(self, peer: bytes, message: Submit) -> None:
        record = self._jobs.submit(message.key, message.job)
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
        ended = self._journal.jobs("done", "failed", "cancelled")
        listed, size = [], 0
        for record in [*unfinished, *reversed(ended)]:
            status = job_status(record, with_summary=False)
            size += len(frames.encode(status)[1])
            if size > _STATUS_BYTES:
                break
            listed.append(status)
        self._sessions.send(
            peer,
            DaemonStatus(
                request=message.request,
                version=__version__,
                boot=self.boot,
                pid=os.getpid(),
                uptime_seconds=time.monotonic() - self._started,
                devices=self._supervisor.devices(),
                jobs=listed,
                dropped=self._dropped,
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
        for model in zoo.list_models(self._home.folder):
            brief = zoo.brief(model)
            # One byte is the comma.
            needed = len(msgspec.json.encode(brief)) + 1
            if size + needed > HEADER_LIMIT or len(answer.models) == MODELS_LIMIT:
                answer.left_out += 1
                continue
            size += needed
            answer.models.append(brief)
        self._sessions.send(peer, answer)

    # --- events -----------------------------------------------------------------------------------

    def _emit(self, job: str, message: Message) -> None:
        if isinstance(message, Failed):
            self._attachments.detach_job(job)
        elif isinstance(message, Done):
            self._attachments.finish_job(job, message.seq)
        self._sessions.emit(job, message)
        if isinstance(message, Failed | Done):
            self._sessions.unwatch(job)  # nothing follows

    def _rows_ready(self, job: str) -> None:
        self._attachments.stir(job)

    def _from_worker(self, worker: Worker, message: link.FromWorker | Gone) -> None:
        try:
            self._jobs.handle(worker, message)
        except Exception:  # noqa: BLE001 - the boundary: a worker must not end the daemon
            _log.exception("message of worker %d failed; it is replaced", worker.process.pid)
            worker.process.kill()

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

    # --- mechanics ------------------------------------------------------------------------------------

    def _bind(self) -> zmq.Socket[bytes]:
        # Two jobs at full credit fit the send queue of one data peer.
        router = bind_router(self._context, self.server_keys, send_limit=64)
        try:
            self_attack(router, self.server_keys, self.client_keys)
        except BaseException:
            router.close(linger=0)
            raise
        return router

    def _patience(self) -> int:
        """Milliseconds the loop may wait for news."""
        if self._jobs.urgent() or self._attachments.waiting():
            return 25
        return 200

    def _follow_links(self) -> None:
        """Forget the peers that left."""
        for peer in self._control_links.departed():
            self._sessions.leave(peer)
        if not self._control_links.any:
            self._sessions.clear()
        for peer in self._data_links.departed():
            self._attachments.leave(peer)
        if not self._data_links.any:
            self._attachments.clear()

    def _tell(self, control: bool, peer: bytes, message: Error) -> None:
        if control:
            self._sessions.send(peer, message)
        else:
            self._attachments.tell(peer, message)

    def _close(self) -> None:
        self._authenticator.close()
        for name in ("_control", "_data"):
            links = getattr(self, f"{name}_links", None)
            if links is not None:
                links.close()
            socket = getattr(self, name, None)
            if socket is not None:
                socket.close(linger=200)  # the goodbyes
        supervisor = getattr(self, "_supervisor", None)
        if supervisor is not None and not supervisor.inbox.closed:
            supervisor.inbox.close()
        self._context.term()
        self._journal.close()


def _receive(socket: zmq.Socket[bytes]) -> tuple[bytes, int, list[bytes]] | None:
    """Routing id, connection and at most five frames of the next message; more is thrown away."""
    try:
        identity = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts: list[bytes] = []
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv(zmq.NOBLOCK)
        if len(parts) < 5:
            parts.append(part)
    return identity.bytes, int(identity.get(zmq.SRCFD)), parts


def _error(error: RestError, request: str, job: str = "") -> Error:
    return Error(request=request, code=error.code[:256], message=error.message[:4096], job=job)
