"""The real daemon as a process of its own, and a plain client for tests: DEALERs and the wire's own codec."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
import psutil
import zmq

from rest_backend.daemon.connection import Connection
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    PROTOCOL,
    Attach,
    Credit,
    Goodbye,
    Hello,
    Message,
    Rows,
    SegmentJob,
    Shutdown,
    Submit,
    Submitted,
    Welcome,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; no test waits that long unless something is broken
Kind = TypeVar("Kind", bound=Message)


class Daemon:
    """One daemon in one home; may be started again after its end."""

    def __init__(
        self, home: Path, environment: dict[str, str] | None = None, idle_minutes: float = 30
    ) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        self._idle_minutes = idle_minutes
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "REST_WORKER_METHOD": "tests.daemon.fake_method:segment",
            "REST_PLANNER_METHOD": "tests.daemon.fake_plan:plan",
            **(environment or {}),
        }

    def start(self) -> Connection:
        self.process = self.spawn()
        wait_until(lambda: self.connection_path.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]
        return self.connection

    def spawn(self) -> subprocess.Popen[bytes]:
        arguments = ["--home", str(self.home), "--idle-minutes", str(self._idle_minutes)]
        return subprocess.Popen(
            [sys.executable, "-m", "rest_backend.daemon.serve", *arguments],
            env=self._environment,
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @property
    def connection_path(self) -> Path:
        return self.home / "connection.json"

    @property
    def connection(self) -> Connection:
        return msgspec.json.decode(self.connection_path.read_bytes(), type=Connection)

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.home / "log").iterdir()))

    def workers(self) -> list[psutil.Process]:
        """Live worker processes."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL, as the system does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.process.stderr.close()

    def end(self) -> None:
        """By ``shutdown``, as the plugin ends it; a daemon that does not heed that fails the test."""
        if self.process is None:
            return
        try:
            if self.process.poll() is None and self.connection_path.exists():
                with client(self.connection) as last:
                    last.ask(Shutdown(), Goodbye)
                self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stderr.close()


class Client:
    """Both sockets of a client; every message is checked by the wire's decoder."""

    def __init__(self, connection: Connection, *, hello: bool = True) -> None:
        self.context = zmq.Context()
        self.control = self._connect(connection, connection.control)
        self.data = self._connect(connection, connection.data)
        self.seen: list[Message] = []
        if hello:
            self.welcome = self.ask(
                Hello(protocols=(PROTOCOL, PROTOCOL), client="test", version="0"), Welcome
            )

    def close(self) -> None:
        self.context.destroy(linger=0)

    def send(self, message: Message) -> None:
        self.control.send_multipart(frames.encode(message))

    def ask(self, message: Message, kind: type[Kind]) -> Kind:
        """Send a request and wait for its answer; events that come first are kept in ``seen``."""
        message.request = f"r{time.monotonic_ns()}"
        self.send(message)
        return self.expect(kind, lambda answer: answer.request == message.request)

    def expect(self, kind: type[Kind], fits: Callable[[Kind], bool] = lambda message: True) -> Kind:
        """Next control message of a kind, from those kept or yet to come."""
        deadline = time.monotonic() + PATIENCE
        for index, message in enumerate(self.seen):
            if isinstance(message, kind) and fits(message):
                return self.seen.pop(index)
        while self.control.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message, payload = frames.decode_answer(self.control.recv_multipart())
            assert not payload
            if isinstance(message, kind) and fits(message):
                return message
            self.seen.append(message)
        raise AssertionError(f"no {kind.__name__} came; there were {self.seen[-20:]}")

    def submit(self, job: SegmentJob, key: str = "key", abandon_seconds: int = 0) -> str:
        return self.ask(Submit(key=key, job=job, abandon_seconds=abandon_seconds), Submitted).job

    def attach(self, job: str, credit: int, seq: int = 0) -> None:
        self.data.send_multipart(frames.encode(Attach(job=job, seq=seq, credit=credit)))

    def credit(self, job: str, credit: int = 1) -> None:
        self.data.send_multipart(frames.encode(Credit(job=job, credit=credit)))

    def data_message(self, seconds: float = PATIENCE) -> tuple[Message, bytes] | None:
        """Next message on data, None when none comes in time."""
        if not self.data.poll(int(seconds * 1000)):
            return None
        return frames.decode_answer(self.data.recv_multipart())

    def rows(self, job: str, upto: int, seq: int = 0, credit: int = 1) -> Iterator[tuple[Rows, bytes]]:
        """Rows ``seq`` to ``upto``, one credit given for each that came, none more than needed."""
        credit = min(credit, upto - seq)
        self.attach(job, credit, seq)
        for expected in range(seq, upto):
            received = self.data_message()
            assert received is not None, f"row block {expected} did not come"
            message, payload = received
            assert isinstance(message, Rows), message
            assert (message.job, message.seq) == (job, expected)
            yield message, frames.unpack_rows(message, payload)
            if expected + credit < upto:
                self.credit(job)

    @staticmethod
    def keys(socket: zmq.Socket[bytes], connection: Connection) -> None:
        socket.curve_publickey = connection.client_public.encode()
        socket.curve_secretkey = connection.client_secret.encode()
        socket.curve_serverkey = connection.server_public.encode()

    def _connect(self, connection: Connection, address: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvhwm = 1000
        self.keys(socket, connection)
        socket.connect(address)
        return socket


@contextmanager
def client(connection: Connection, *, hello: bool = True) -> Iterator[Client]:
    opened = Client(connection, hello=hello)
    try:
        yield opened
    finally:
        opened.close()


def fake_job(folder: Path, name: str = "out", device: str = "auto", **options: object) -> SegmentJob:
    """A job for ``fake_method``; files go into ``folder``."""
    return SegmentJob(
        scene=str(folder / "scene.tif"),
        model=urlencode(options) or "plain=1",
        output=str(folder / f"{name}.tif"),
        device=device,
    )


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def assemble(blocks: list[tuple[Rows, bytes]], width: int, height: int) -> bytes:
    """Class map of a job at column 0, row 0; fails when a pixel is missing or comes twice."""
    canvas, written = bytearray(width * height), bytearray(width * height)
    for rows, values in blocks:
        column, row, block_width, block_height = rows.window
        for line in range(block_height):
            start = (row + line) * width + column
            assert not any(written[start : start + block_width]), "a pixel came twice"
            written[start : start + block_width] = b"\1" * block_width
            canvas[start : start + block_width] = values[line * block_width : (line + 1) * block_width]
    assert all(written), "pixels are missing"
    return bytes(canvas)
