"""Frames that mean harm, from a peer that has the keys and from one that has none."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import psutil
import pytest

from rest_backend.daemon.security import FRAME_LIMIT
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    MAGIC,
    Attach,
    DaemonStatus,
    Done,
    Error,
    Status,
    Submit,
)
from tests.daemon.harness import Client, Daemon, client, fake_job

JUNK = [
    [],
    [b""],
    [b"REST1"],
    [b"REST2", b"{}"],
    [MAGIC, b"{}"],
    [MAGIC, b""],
    [MAGIC, b"\xff\xfe"],
    [MAGIC, b"[" * HEADER_LIMIT],
    [MAGIC, b" " * (HEADER_LIMIT + 1)],
    [MAGIC, b'{"type":"status"}', b"x"],
    [MAGIC] + [b"x"] * 500,
]


def test_malformed_messages_are_dropped_and_counted_and_the_link_stays(served: Client) -> None:
    for parts in JUNK[1:]:
        served.control.send_multipart(parts)
        served.data.send_multipart(parts)
    # Not at once: the count is of messages handled before the status was.
    while served.data_message(0.5) is not None:
        raise AssertionError("junk was answered")
    status = served.ask(Status(), DaemonStatus)
    assert status.dropped == 2 * len(JUNK[1:])
    assert served.seen == []


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b'{"type":"explode","request":"r1"}', "E_UNKNOWN_TYPE"),
        (b'{"type":"submit","request":"r1","key":"k"}', "E_HEADER"),
        (b'{"type":"status","request":"r1","job":["x"]}', "E_HEADER"),
        (b'{"type":"welcome","request":"r1","protocol":1,"version":"1","boot":"b"}', "E_HEADER"),
    ],
)
def test_a_question_that_is_no_message_gets_an_answer(served: Client, header: bytes, code: str) -> None:
    served.control.send_multipart([MAGIC, header])
    error = served.expect(Error)
    assert (error.request, error.code) == ("r1", code)
    assert served.ask(Status(), DaemonStatus).dropped == 1


def test_3000_mutated_messages_leave_the_daemon_serving(
    served: Client, daemon: Daemon, tmp_path: Path
) -> None:
    chance = random.Random(2)
    seeds = [
        frames.encode(message)
        for message in (
            Status(request="x"),
            Submit(request="x", key="k", job=fake_job(tmp_path)),
            Attach(request="x", job="j", seq=1, credit=3),
        )
    ]
    before = psutil.Process(daemon.process.pid).memory_info().rss
    for number in range(3000):
        parts = [bytearray(part) for part in chance.choice(seeds)]
        target = chance.choice(parts)
        for _ in range(chance.randrange(1, 5)):
            target[chance.randrange(len(target))] = chance.randrange(256)
        chance.choice((served.control, served.data)).send_multipart(parts)
        if number % 100 == 99:  # no faster than it is handled
            assert served.ask(Status(), DaemonStatus).pid == daemon.process.pid
    served.submit(fake_job(tmp_path, "after"), key="after")
    done = served.expect(Done, lambda message: message.output.endswith("after.tif"))
    assert done.seq == 10
    assert "Traceback" not in (daemon.home / "log" / "daemon.log").read_text()
    assert psutil.Process(daemon.process.pid).memory_info().rss - before < 64 * 2**20


def test_a_frame_beyond_the_limit_ends_that_link_only(daemon: Daemon) -> None:
    connection = daemon.start()
    with client(connection) as victim, client(connection) as attacker:
        before = psutil.Process(daemon.process.pid).memory_info().rss
        for _ in range(20):
            attacker.control.send_multipart([MAGIC, b"x" * (FRAME_LIMIT + 1)])
        status = victim.ask(Status(), DaemonStatus)
        assert status.dropped == 0  # never reached us
        assert psutil.Process(daemon.process.pid).memory_info().rss - before < 32 * 2**20


def test_bytes_that_are_no_zeromq(daemon: Daemon) -> None:
    connection = daemon.start()
    host, port = connection.control.removeprefix("tcp://").split(":")
    chance = random.Random(3)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00CURVE" + b"\0" * 15
    huge = greeting + b"\0" * 32 + b"\x06" + (2**33).to_bytes(8, "big")
    before = psutil.Process(daemon.process.pid).memory_info().rss
    for number in range(200):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(
                (greeting[: number % 30], huge, chance.randbytes(64), b"GET / HTTP/1.1\r\n\r\n")[number % 4]
            )
    with client(connection) as served:
        assert served.ask(Status(), DaemonStatus).dropped == 0
    assert psutil.Process(daemon.process.pid).memory_info().rss - before < 32 * 2**20


def test_a_client_that_reads_nothing_stops_nobody(daemon: Daemon, tmp_path: Path) -> None:
    connection = daemon.start()
    with client(connection) as lazy, client(connection) as served:
        job = served.submit(fake_job(tmp_path, width=1000, height=300, stripe=1, noise=1))
        for other in range(20):  # events pile up for whoever watches
            lazy.send(Submit(key=f"lazy{other}", job=fake_job(tmp_path, f"lazy{other}")))
        lazy.attach(job, 32)
        for _ in range(1000):
            lazy.send(Status())
        done = served.expect(Done)
        assert done.job == job
        assert len(list(served.rows(job, done.seq, credit=8))) == done.seq == 300
        assert served.ask(Status(), DaemonStatus)
