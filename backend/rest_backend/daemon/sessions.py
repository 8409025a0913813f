"""Peers of the two client sockets: who greeted, who watches what, who may get which rows."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from rest_backend.daemon.journal import Journal
from rest_backend.daemon.spool import read_block
from rest_backend.errors import ResourceError
from rest_backend.wire import frames
from rest_backend.wire.messages import CREDIT_LIMIT, Error, Goodbye, Message, Progress, Rows

_log = logging.getLogger(__name__)

SESSION_LIMIT = 256
ATTACHMENT_LIMIT = 2048  # more than the queue holds: one client may attach to all of its jobs
BACKLOG_LIMIT = 256  # messages kept for a client that does not read


@dataclass
class _Session:
    greeted: bool = False
    leaving: bool = False  # only its goodbye is still to be sent
    backlog: deque[list[bytes]] = field(default_factory=deque)


class ControlSessions:
    """Clients of the control socket.

    Args:
        socket: The control socket.
        limit: Most clients remembered.
    """

    def __init__(self, socket: zmq.Socket[bytes], limit: int = SESSION_LIMIT) -> None:
        self._socket = socket
        self._limit = limit
        self._sessions: dict[bytes, _Session] = {}
        self._watchers: defaultdict[str, set[bytes]] = defaultdict(set)

    def greet(self, peer: bytes) -> None:
        """Remember a client that speaks our protocol; another goes when there are too many."""
        session = self._session(peer)
        session.greeted, session.leaving = True, False

    def greeted(self, peer: bytes) -> bool:
        """Whether the client said hello."""
        return peer in self._sessions and self._sessions[peer].greeted

    def watch(self, peer: bytes, job: str) -> None:
        """Send the events of a job to a client."""
        self._watchers[job].add(peer)

    def unwatch(self, job: str) -> None:
        """The job ended: no event of it follows."""
        self._watchers.pop(job, None)

    def watched(self, job: str) -> bool:
        """Whether any client watches a job."""
        return job in self._watchers

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
        if session.leaving:
            return
        if session.backlog or not self._try(peer, encoded):
            self._keep(peer, session, message, encoded)

    def flush(self) -> bool:
        """Send what waits for slow clients; True when nothing waits any more."""
        for peer, session in list(self._sessions.items()):
            while session.backlog and self._try(peer, session.backlog[0]):
                session.backlog.popleft()
            if session.leaving and not session.backlog:
                self.leave(peer)
        return not any(session.backlog for session in self._sessions.values())

    def leave(self, peer: bytes) -> None:
        """A client is gone."""
        self._sessions.pop(peer, None)
        for job, peers in list(self._watchers.items()):
            peers.discard(peer)
            if not peers:
                del self._watchers[job]

    def clear(self) -> None:
        """Nobody is connected any more."""
        self._sessions.clear()
        self._watchers.clear()

    def _session(self, peer: bytes) -> _Session:
        if peer not in self._sessions:
            while len(self._sessions) >= self._limit:
                self._evict()
            self._sessions[peer] = _Session()
        return self._sessions[peer]

    def _keep(self, peer: bytes, session: _Session, message: Message, encoded: list[bytes]) -> None:
        if isinstance(message, Progress):
            return
        if len(session.backlog) >= BACKLOG_LIMIT:
            _log.warning("a client does not read; it is dropped")
            self.leave(peer)
            sentence = f"The engine ended this link: {BACKLOG_LIMIT} of its messages were not read."
            goodbye = frames.encode(Goodbye(code="E_SLOW", message=sentence))
            # It stays in the table until it reads its goodbye or goes away.
            self._sessions[peer] = _Session(leaving=True, backlog=deque([goodbye]))
            return
        session.backlog.append(encoded)

    def _evict(self) -> None:
        """Make room: whoever never said hello goes first, then the oldest, with a goodbye."""
        strange = (peer for peer, session in self._sessions.items() if not session.greeted)
        peer = next(strange, next(iter(self._sessions)))
        _log.warning("too many clients; one is dropped")
        sentence = "The engine ended this link: too many clients are connected."
        self._try(peer, frames.encode(Goodbye(code="E_BUSY", message=sentence)))
        self.leave(peer)

    def _try(self, peer: bytes, encoded: list[bytes]) -> bool:
        """Whether the message needs no further attempt."""
        sent = _send(self._socket, peer, encoded)
        if sent is None:
            self.leave(peer)
        return sent is not False


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
        spool_folder: Where the rows of a job lie.
        limit: Most attachments; beyond it the one that was used least recently goes, and its
            client hears ``E_NOT_ATTACHED`` when it gives credit next.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        journal: Journal,
        spool_folder: Callable[[str], Path],
        limit: int = ATTACHMENT_LIMIT,
    ) -> None:
        self._socket = socket
        self._journal = journal
        self._spool_folder = spool_folder
        self._limit = limit
        self._attachments: OrderedDict[tuple[bytes, str], _Attachment] = OrderedDict()
        # Whose rows were all sent: credit for blocks that do not exist is still on its way.
        self._delivered: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._attachments)

    def attach(self, peer: bytes, job: str, seq: int, credit: int) -> None:
        """Send rows of a job from ``seq`` on; attaching again replaces position and credit."""
        key = (peer, job)
        self._delivered.pop(key, None)
        self._attachments.pop(key, None)
        while len(self._attachments) >= self._limit:
            self._attachments.popitem(last=False)
        self._attachments[key] = _Attachment(seq, credit)
        if self._journal.state(job) == "done" and not self._journal.blocks(job, seq, 1):
            self._complete(key)

    def grant(self, peer: bytes, job: str, credit: int) -> bool:
        """Add credit, never beyond ``CREDIT_LIMIT``; False when the client is not attached."""
        key = (peer, job)
        attachment = self._attachments.get(key)
        if attachment is None:
            return key in self._delivered
        self._attachments.move_to_end(key)
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

    def forget_job(self, job: str) -> None:
        """The job was deleted: whoever still gets its rows hears so."""
        for key in [key for key in self._attachments if key[1] == job]:
            del self._attachments[key]
            self.tell(key[0], Error(job=job, code="E_UNKNOWN_JOB", message="The job was deleted."))
        for key in [key for key in self._delivered if key[1] == job]:
            del self._delivered[key]

    def finish_job(self, job: str, next_seq: int) -> None:
        """The job is done with ``next_seq`` blocks: whoever has them all needs nothing more."""
        for key in [key for key in self._attachments if key[1] == job]:
            if self._attachments[key].seq >= next_seq:
                self._complete(key)

    def leave(self, peer: bytes) -> None:
        """A client is gone."""
        for table in (self._attachments, self._delivered):
            for key in [key for key in table if key[0] == peer]:
                del table[key]

    def clear(self) -> None:
        """Nobody is connected any more."""
        self._attachments.clear()
        self._delivered.clear()

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
        blocks = self._journal.blocks(job, attachment.seq, 2)
        if not blocks:
            attachment.hungry = False
            if self._journal.state(job) is None:
                del self._attachments[peer, job]
                message = "The rows of this job were deleted to make room for newer ones."
                self.tell(peer, Error(job=job, code="E_UNKNOWN_JOB", message=message))
            return False
        block = blocks[0]
        try:
            codec, payload = frames.pack_rows(read_block(self._spool_folder(job), block))
        except ResourceError as error:
            _log.error("job %s, block %d: %s", job, block.seq, error.message)
            del self._attachments[peer, job]
            self.tell(peer, Error(job=job, code=error.code, message=error.message))
            return False
        rows = Rows(
            job=job,
            seq=block.seq,
            product=block.product,
            window=block.window,
            codec=codec,
            crc32=frames.checksum(payload),
        )
        if not self._send(peer, frames.encode(rows, payload)):
            return False
        attachment.seq += 1
        attachment.credit -= 1
        if len(blocks) == 1 and self._journal.state(job) == "done":
            self._complete((peer, job))
        return True

    def _complete(self, key: tuple[bytes, str]) -> None:
        del self._attachments[key]
        self._delivered[key] = None
        while len(self._delivered) > self._limit:
            self._delivered.popitem(last=False)

    def tell(self, peer: bytes, message: Message) -> None:
        """Send an error; a client with no room for it misses it."""
        self._send(peer, frames.encode(message))

    def _send(self, peer: bytes, encoded: list[bytes]) -> bool:
        sent = _send(self._socket, peer, encoded)
        if sent is None:
            self.leave(peer)
        return sent is True


def _send(socket: zmq.Socket[bytes], peer: bytes, encoded: list[bytes]) -> bool | None:
    """Send without waiting: True when sent, False when the peer has no room, None when it has left."""
    try:
        socket.send_multipart([peer, *encoded], zmq.NOBLOCK)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        return None
    return True
