"""The broker: every client socket, the journal and the queue, in one light process.

It imports neither torch nor rasterio nor numpy; what can crash, leak or hang lives in
workers. One thread polls two ROUTER sockets and the workers' inbox; nothing in
the loop waits for a client or a worker.
"""

from __future__ import annotations

import logging
import secrets
import time
from types import TracebackType

import zmq

from rest_backend.daemon import link
from rest_backend.daemon.home import Home
from rest_backend.daemon.jobs import Jobs
from rest_backend.daemon.journal import Journal
from rest_backend.daemon.links import Links
from rest_backend.daemon.planner import Planner
from rest_backend.daemon.requests import Requests
from rest_backend.daemon.security import Authenticator, bind_router, load_or_make_keys, self_attack
from rest_backend.daemon.sessions import Attachments, ControlSessions
from rest_backend.daemon.supervisor import Gone, Supervisor, Worker
from rest_backend.errors import ResourceError, RestError
from rest_backend.wire import frames
from rest_backend.wire.messages import Done, Error, Failed, Goodbye, Message, Plan, Submit

_log = logging.getLogger(__name__)

_REQUESTS_A_TURN = 64


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
        self._stop = False

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
            self._jobs = Jobs(
                self._journal,
                self._supervisor,
                self._home,
                self._emit,
                self._rows_ready,
                self._sessions.watched,
            )
            self._attachments = Attachments(self._data, self._journal, self._jobs.spool_folder)
            self._planner = Planner(self._supervisor, self._sessions.send, self._home.log)
            self._requests = Requests(
                self.boot,
                self._home.folder,
                self._journal,
                self._jobs,
                self._planner,
                self._supervisor,
                self._sessions,
                self._attachments,
                self.stop,
            )
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
                self._from_worker(worker, message, now)
            for _ in range(_REQUESTS_A_TURN):
                if not (self._take(self._control) | self._take(self._data)):
                    break
            self._supervisor.tick(now)
            self._jobs.tick(now)
            self._planner.tick(now)
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
            self._requests.dropped += 1
            _log.info("message dropped: %s", error.code)
            if error.request:
                self._tell(control, peer, _error(error, error.request))
            return True
        try:
            if control:
                self._requests.on_control(peer, message)
            else:
                self._requests.on_data(peer, message)
        except RestError as error:
            named = "" if isinstance(message, Submit | Plan) else getattr(message, "job", "")
            self._tell(control, peer, _error(error, message.request, named))
        except Exception:  # noqa: BLE001 - the boundary: one request must not end the daemon
            _log.exception("request failed")
            sentence = f"The engine made a mistake; its log is {self._home.log / 'daemon.log'}."
            self._tell(control, peer, Error(request=message.request, code="E_INTERNAL", message=sentence))
        return True

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

    def _from_worker(self, worker: Worker, message: link.FromWorker | Gone, now: float) -> None:
        try:
            if worker.planner:
                self._planner.handle(message, now)
            else:
                self._jobs.handle(worker, message)
        except Exception:  # noqa: BLE001 - the boundary: a worker must not end the daemon
            _log.exception("message of worker %d failed; it is replaced", worker.process.pid)
            worker.process.kill()

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
            self._planner.leave(peer)
        if not self._control_links.any:
            self._sessions.clear()
            self._planner.clear()
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
