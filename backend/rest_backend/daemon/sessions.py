"""Peers of the two client sockets: who greeted, who watches what, who may get which rows."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from rest_backend.daemon.journal import Journal
from rest_backend.daemon.spool import read_block
from rest_backend.errors import ResourceError
from rest_backend.wire import frames
from rest_backend.wire.messages import CREDIT_LIMIT, Error, Message, Progress, Rows

_log = logging.getLogger(__name__)

SESSION_LIMIT = 256
ATTACHMENT_LIMIT = 256
BACKLOG_LIMIT = 256  # messages kept for a client that does not read


@dataclass
class _Session:
    greeted: bool = False
    backlog: deque[list[bytes]] = field(default_factory=deque)


class ControlSessions:
    """Clients of the control socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._sessions: dict[bytes, _Session] = {}
        self._watchers: defaultdict[str, set[bytes]] = defaultdict(set)

    def greet(self, peer: bytes) -> None:
        """Remember a client that speaks our protocol; the oldest goes when there are too many."""
        self._session(peer).greeted = True

    def greeted(self, peer: bytes) -> bool:
        """Whether the client said hello."""
        return peer in self._sessions and self._sessions[peer].greeted

    def watch(self, peer: bytes, job: str) -> None:
        """Send the events of a job to a client."""
        self._watchers[job].add(peer)

    def emit(self, job: str, message: Message) -> None:
        """Send an event to those who watch the job."""
        for peer in tuple(self._watchers.get(job, ())):
            self.send(peer, message)

    def broadcast(self, message: Message) -> None:
        """Send to every client that said hello."""
        for peer in tuple(self._sessions):
            self.send(peer, message)

    def send(self, peer: bytes, message: Message) -> None:
        """Send an answer or event; what a slow client has no room for waits, progress is left out."""
        try:
            encoded = frames.encode(message)
        except frames.WireError as error:
            refusal = Error(request=message.request, code="E_ANSWER_SIZE", message=error.message)
            encoded = frames.encode(refusal)
        session = self._session(peer)
        if session.backlog or not self._try(peer, encoded):
            self._keep(peer, session, message, encoded)

    def flush(self) -> bool:
        """Send what waits for slow clients; True when nothing waits any more."""
        for peer, session in list(self._sessions.items()):
            while session.backlog and self._try(peer, session.backlog[0]):
                session.backlog.popleft()
                if peer not in self._sessions:
                    break
        return not any(session.backlog for session in self._sessions.values())

    def clear(self) -> None:
        """Nobody is connected any more."""
        self._sessions.clear()
        self._watchers.clear()

    def _session(self, peer: bytes) -> _Session:
        if peer not in self._sessions:
            while len(self._sessions) >= SESSION_LIMIT:
                self._drop(next(iter(self._sessions)))
            self._sessions[peer] = _Session()
        return self._sessions[peer]

    def _keep(self, peer: bytes, session: _Session, message: Message, encoded: list[bytes]) -> None:
        if isinstance(message, Progress):
            return
        if len(session.backlog) >= BACKLOG_LIMIT:
            self._drop(peer)
            return
        session.backlog.append(encoded)

    def _try(self, peer: bytes, encoded: list[bytes]) -> bool:
        """Whether the message needs no further attempt."""
        try:
            self._socket.send_multipart([peer, *encoded], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._drop(peer)
        return True

    def _drop(self, peer: bytes) -> None:
        self._sessions.pop(peer, None)
        for job, peers in list(self._watchers.items()):
            peers.discard(peer)
            if not peers:
                del self._watchers[job]


@dataclass
class _Attachment:
    seq: int
    credit: int
    hungry: bool = True


class Attachments:
    """Who gets the rows of which job, on the data socket.

    The receiver decides: without credit nothing is sent, and a job runs all the same.

    Args:
        socket: The data socket.
        journal: Where the blocks are known.
        rows_path: Spool file of a job.
    """

    def __init__(self, socket: zmq.Socket[bytes], journal: Journal, rows_path: Callable[[str], Path]) -> None:
        self._socket = socket
        self._journal = journal
        self._rows_path = rows_path
        self._attachments: dict[tuple[bytes, str], _Attachment] = {}

    def attach(self, peer: bytes, job: str, seq: int, credit: int) -> None:
        """Send rows of a job from ``seq`` on; attaching again replaces position and credit.

        Raises:
            ResourceError: ``E_BUSY``: there are too many.
        """
        key = (peer, job)
        if key not in self._attachments and len(self._attachments) >= ATTACHMENT_LIMIT:
            raise ResourceError("E_BUSY", "Too many clients receive rows already.")
        self._attachments[key] = _Attachment(seq, credit)

    def grant(self, peer: bytes, job: str, credit: int) -> bool:
        """Add credit, never beyond ``CREDIT_LIMIT``; False when the client is not attached."""
        attachment = self._attachments.get((peer, job))
        if attachment is None:
            return False
        attachment.credit = min(CREDIT_LIMIT, attachment.credit + credit)
        attachment.hungry = True
        return True

    def stir(self, job: str) -> None:
        """New blocks of a job are journaled."""
        for (_, attached), attachment in self._attachments.items():
            if attached == job:
                attachment.hungry = True

    def detach_job(self, job: str) -> None:
        """The job ended without a result."""
        for key in [key for key in self._attachments if key[1] == job]:
            del self._attachments[key]

    def clear(self) -> None:
        """Nobody is connected any more."""
        self._attachments.clear()

    def pump(self) -> bool:
        """Send at most one block to each client that has credit.

        Returns:
            Whether any was sent, so that there may be more.
        """
        sent = False
        for (peer, job), attachment in list(self._attachments.items()):
            if attachment.hungry and attachment.credit and (peer, job) in self._attachments:
                sent |= self._send_next(peer, job, attachment)
        return sent

    def waiting(self) -> bool:
        """Whether a client has credit that could not be used because its link was full."""
        return any(attachment.hungry and attachment.credit for attachment in self._attachments.values())

    def _send_next(self, peer: bytes, job: str, attachment: _Attachment) -> bool:
        blocks = self._journal.blocks(job, attachment.seq, 1)
        if not blocks:
            attachment.hungry = False
            return False
        block = blocks[0]
        try:
            codec, payload = frames.pack_rows(read_block(self._rows_path(job), block))
        except ResourceError as error:
            _log.error("job %s, block %d: %s", job, block.seq, error.message)
            del self._attachments[peer, job]
            self.tell(peer, Error(job=job, code=error.code, message=error.message))
            return False
        rows = Rows(job=job, seq=block.seq, window=block.window, codec=codec, crc32=frames.checksum(payload))
        if not self._send(peer, frames.encode(rows, payload)):
            return False
        attachment.seq += 1
        attachment.credit -= 1
        return True

    def tell(self, peer: bytes, message: Message) -> None:
        """Send an error; a client with no room for it misses it."""
        self._send(peer, frames.encode(message))

    def _send(self, peer: bytes, encoded: list[bytes]) -> bool:
        try:
            self._socket.send_multipart([peer, *encoded], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            for key in [key for key in self._attachments if key[0] == peer]:
                del self._attachments[key]
            return False
        return True
