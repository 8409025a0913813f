"""Who is connected and who gets rows: tables that forget whoever is done or gone, on real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from rest_backend.daemon.journal import Journal
from rest_backend.daemon.links import Links
from rest_backend.daemon.sessions import ATTACHMENT_LIMIT, BACKLOG_LIMIT, Attachments, ControlSessions
from rest_backend.daemon.spool import RowSpool
from rest_backend.wire import frames
from rest_backend.wire.messages import Done, Error, Goodbye, Message, Progress, Rows, SegmentJob, Welcome
from tests.daemon.harness import wait_until

LIMIT = 8
WINDOW = (0, 0, 4, 3)


class Desk:
    """A ROUTER, its peers, and a journal with jobs of three blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.links = Links(self.router)
        self.journal = Journal(folder / "journal.sqlite")
        self._dealers: list[zmq.Socket] = []  # one that nobody holds is closed

    def close(self) -> None:
        self.links.close()
        self.context.destroy(linger=0)
        self.journal.close()

    def peer(self, name: str, receive_limit: int = 100) -> zmq.Socket:
        """A connected peer that the links know."""
        dealer = self.context.socket(zmq.DEALER)
        self._dealers.append(dealer)
        dealer.linger = 0
        dealer.routing_id = name.encode()
        dealer.rcvhwm, dealer.rcvbuf = receive_limit, 4096
        dealer.connect(f"tcp://127.0.0.1:{self.port}")
        dealer.send(b"here I am")
        assert self.router.poll(5000)
        identity, _ = self.router.recv_multipart(copy=False)
        self.links.note(identity.bytes, int(identity.get(zmq.SRCFD)))
        return dealer

    def spool_folder(self, job: str) -> Path:
        return self.folder / job

    def running(self, key: str) -> str:
        """A job with all of its blocks that is not done yet."""
        job = self.journal.submit(key, SegmentJob(scene="/s", model="m", output="/o")).id
        self.journal.start(job)
        self.journal.begun(job, WINDOW, [])
        spool = RowSpool(self.spool_folder(job), WINDOW, 0, {})
        for row in range(3):
            self.journal.add_blocks(job, spool.append("classes", row, bytes([row] * 4)))
        spool.close()
        return job

    def done(self, key: str) -> str:
        job = self.running(key)
        self.journal.finish(job, {})
        return job


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def received(dealer: zmq.Socket, count: int) -> list[Message]:
    messages = []
    for _ in range(count):
        assert dealer.poll(5000)
        messages.append(frames.decode_answer(dealer.recv_multipart())[0])
    return messages


def gone(desk: Desk, count: int) -> set[bytes]:
    found: set[bytes] = set()

    def all_gone() -> bool:
        found.update(desk.links.departed())
        return len(found) == count

    wait_until(all_gone, 10)
    return found


# --- links ---------------------------------------------------------------------------------


def test_who_left_is_known_and_who_stays_too(desk: Desk) -> None:
    peers = {name: desk.peer(name) for name in ("a", "b", "c")}
    assert desk.links.any and desk.links.departed() == []
    peers.pop("b").close()
    assert gone(desk, 1) == {b"b"}
    again = desk.peer("b2")  # most systems give it the same descriptor
    assert desk.links.departed() == []
    for dealer in (*peers.values(), again):
        dealer.close()
    assert gone(desk, 3) == {b"a", b"c", b"b2"}
    assert not desk.links.any


# --- attachments ---------------------------------------------------------------------------


def test_more_jobs_than_the_limit_each_give_all_their_rows(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    dealer = desk.peer("a")
    for number in range(4 * LIMIT):
        job = desk.done(str(number))
        attachments.attach(b"a", job, 0, 32)
        while attachments.pump():
            pass
        assert [message.seq for message in received(dealer, 3)] == [0, 1, 2]
        assert len(attachments) == 0
        assert attachments.grant(b"a", job, 8)  # credit for what does not exist is no fault


def test_rows_sent_before_the_job_is_done_end_the_attachment_then(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    desk.peer("a")
    job = desk.running("k")
    attachments.attach(b"a", job, 0, 3)  # no credit is left at the end
    while attachments.pump():
        pass
    assert len(attachments) == 1
    desk.journal.finish(job, {})
    attachments.finish_job(job, 3)
    assert len(attachments) == 0


def test_a_client_that_misses_rows_keeps_its_attachment_when_the_job_is_done(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    dealer = desk.peer("a")
    job = desk.running("k")
    attachments.attach(b"a", job, 0, 1)
    attachments.pump()
    desk.journal.finish(job, {})
    attachments.finish_job(job, 3)
    assert len(attachments) == 1
    assert attachments.grant(b"a", job, 2)
    while attachments.pump():
        pass
    assert [type(message) for message in received(dealer, 3)] == [Rows] * 3
    assert len(attachments) == 0


def test_beyond_the_limit_the_least_used_goes_and_nobody_is_refused(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    dealer = desk.peer("a")
    jobs = [desk.running(str(number)) for number in range(LIMIT + 1)]
    for job in jobs[:LIMIT]:
        attachments.attach(b"a", job, 0, 0)
    assert attachments.grant(b"a", jobs[0], 1)
    attachments.attach(b"a", jobs[LIMIT], 0, 1)
    assert len(attachments) == LIMIT
    assert not attachments.grant(b"a", jobs[1], 1)
    attachments.pump()
    assert {message.job for message in received(dealer, 2)} == {jobs[0], jobs[LIMIT]}
    attachments.attach(b"a", jobs[1], 0, 1)
    attachments.pump()
    assert received(dealer, 1)[0].job == jobs[1]
    assert ATTACHMENT_LIMIT > 512 + 64  # one client may attach to all of a full queue


def test_a_client_that_leaves_takes_its_attachments_along(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    stays, leaves = desk.peer("stays"), desk.peer("leaves")
    jobs = [desk.running(str(number)) for number in range(3)]
    for job in jobs:
        attachments.attach(b"stays", job, 3, 1)
        attachments.attach(b"leaves", job, 3, 1)
    leaves.close()
    for peer in gone(desk, 1):
        attachments.leave(peer)
    assert len(attachments) == 3
    assert attachments.grant(b"stays", jobs[0], 1)
    stays.close()


def test_rows_of_a_job_that_was_forgotten_are_an_error(desk: Desk) -> None:
    attachments = Attachments(desk.router, desk.journal, desk.spool_folder, limit=LIMIT)
    dealer = desk.peer("a")
    job = desk.done("k")
    attachments.attach(b"a", job, 0, 0)
    desk.journal.forget(job)
    assert attachments.grant(b"a", job, 1)
    attachments.pump()
    (error,) = received(dealer, 1)
    assert (type(error), error.code, error.job) == (Error, "E_UNKNOWN_JOB", job)
    assert len(attachments) == 0


# --- sessions ------------------------------------------------------------------------------


def test_those_who_left_go_before_any_live_client(desk: Desk) -> None:
    sessions = ControlSessions(desk.router, limit=LIMIT)
    live = desk.peer("live")
    sessions.greet(b"live")
    sessions.watch(b"live", "job")
    for number in range(4 * LIMIT):
        passer = desk.peer(f"passer{number}")
        sessions.greet(f"passer{number}".encode())
        passer.close()
        for peer in gone(desk, 1):
            sessions.leave(peer)
    assert sessions.greeted(b"live")
    sessions.emit("job", Done(job="job", seq=0, output="/o"))
    assert isinstance(received(live, 1)[0], Done)


def test_too_many_live_clients_cost_the_oldest_its_session_and_it_hears_so(desk: Desk) -> None:
    sessions = ControlSessions(desk.router, limit=LIMIT)
    dealers = [desk.peer(f"p{number}") for number in range(LIMIT + 2)]
    sessions.send(b"p1", Error(code="E_HELLO", message="first"))  # never said hello
    for number in (0, *range(2, LIMIT + 2)):
        sessions.greet(f"p{number}".encode())
    assert [type(message) for message in received(dealers[1], 2)] == [Error, Goodbye]
    (goodbye,) = received(dealers[0], 1)
    assert (type(goodbye), goodbye.code) == (Goodbye, "E_BUSY")
    assert [sessions.greeted(f"p{number}".encode()) for number in range(LIMIT + 2)] == [
        False, False, *[True] * LIMIT,
    ]  # fmt: skip


def test_a_client_that_does_not_read_gets_a_goodbye_in_place_of_what_waits(desk: Desk) -> None:
    sessions = ControlSessions(desk.router)
    desk.router.sndhwm = 1  # of peers that connect from now on
    dealer = desk.peer("slow", receive_limit=1)
    sessions.greet(b"slow")
    sessions.watch(b"slow", "job")
    sent = 0
    text = "x" * 4000
    while sessions.greeted(b"slow"):
        sessions.send(b"slow", Error(code="E_X", message=text))
        sent += 1
        assert sent < 100_000
    assert sent > BACKLOG_LIMIT
    sessions.emit("job", Progress(job="job", stage="sweep", rows_done=0, rows=0))
    sessions.send(b"slow", Error(code="E_X", message="after the goodbye"))
    came: list[Message] = []
    while not came or not isinstance(came[-1], Goodbye):
        sessions.flush()
        if dealer.poll(10):
            came += received(dealer, 1)
    assert came[-1].code == "E_SLOW"
    assert {type(message) for message in came[:-1]} == {Error}
    assert len(came) - 1 == sent - BACKLOG_LIMIT - 1
    assert sessions.flush()
    sessions.greet(b"slow")
    sessions.send(b"slow", Welcome(protocol=1, version="1", boot="b"))
    assert isinstance(received(dealer, 1)[0], Welcome)
