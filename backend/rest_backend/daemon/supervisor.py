"""Worker processes: one per device, started again when they die, and a planner on demand.

The first worker says which devices there are; then there is one per device. The
planner is one more, outside the devices; it is started when somebody asks for a
plan and never by itself. A worker is started from the broker's main thread (on Linux the signal a child gets
when its parent dies follows the *thread* that started it) in a session of its
own. One thread per worker reads its pipe and passes every message on, so its end
is noticed at once, however it came.
"""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import msgspec
import zmq

from rest_backend.daemon import link
from rest_backend.wire.messages import Device

_log = logging.getLogger(__name__)

START_ATTEMPTS = 3
PLANNER = "planner"
_RESTART_SECONDS = 0.5
_ERROR_FILE_LIMIT = 5 * 1024 * 1024  # bytes
_COOPERATION_SECONDS = 1.2
_INBOX = "inproc://workers"
_NO_DEVICE = link.ComputeDevice(id="", name="")


class Gone:
    """Event: the worker's process ended; no message of it follows."""


class Worker:
    """One worker process and what it does now."""

    def __init__(
        self, number: int, slot: Slot, process: subprocess.Popen[bytes], writer: link.LinkWriter
    ) -> None:
        self.number = number
        self.slot = slot
        self.process = process
        self.ready = False
        self.job = ""
        self.planner = slot.name == PLANNER  # outside the devices, runs no jobs
        self._writer = writer
        self._exited_at: float | None = None

    def send(self, message: link.LinkMessage) -> None:
        """Tell the worker; if it is gone, its end is reported anyway."""
        try:
            self._writer.send(message)
        except OSError:
            _log.info("worker %d does not listen any more", self.process.pid)

    def hang_up(self) -> None:
        """Close the pipe to the worker, which makes it end."""
        if self.process.stdin is not None:
            # Closing writes what an earlier send could not: to a dead process it is of no use.
            try:
                self.process.stdin.close()
            except OSError:
                _log.debug("the pipe of worker %d broke with it", self.process.pid)

    def exited_for(self, now: float) -> float:
        """Seconds since the process was first seen dead; 0 while it lives."""
        if self.process.poll() is None:
            return 0.0
        if self._exited_at is None:
            self._exited_at = now
        return now - self._exited_at


class Slot:
    """One device and the worker it should have; the planner's has no device.

    Attributes:
        name: Of its log files.
        device: Its id; empty until the first worker has told the devices.
        failures: Starts in a row that never became ready.
        resume_at: When to start again (monotonic seconds), while there is no worker.
    """

    def __init__(self, name: str, device: link.ComputeDevice) -> None:
        self.name = name
        self.device = device
        self.worker: Worker | None = None
        self.failures = 0
        self.resume_at = 0.0

    @property
    def down(self) -> bool:
        """Whether starting it was given up for now."""
        return self.failures >= START_ATTEMPTS

    @property
    def state(self) -> Literal["starting", "idle", "busy", "down"]:
        """As the wire's ``Device`` tells it."""
        if self.down:
            return "down"
        if self.worker is None or not self.worker.ready:
            return "starting"
        return "busy" if self.worker.job else "idle"


class Supervisor:
    """Starts, restarts and ends the workers.

    Args:
        context: The broker's context.
        home: The daemon's folder; also the workers' current folder.
        log_folder: Where their error output goes.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], home: Path, log_folder: Path) -> None:
        self._context = context
        self._home = home
        self._log_folder = log_folder
        self._numbers = itertools.count(1)
        self._workers: dict[int, Worker] = {}
        self._slots = [Slot("worker-0", _NO_DEVICE)]
        self._planner = Slot(PLANNER, _NO_DEVICE)
        self._devices_known = False
        self._stopping = False
        self.inbox = context.socket(zmq.PULL)
        self.inbox.setsockopt(zmq.LINGER, 0)
        self.inbox.bind(_INBOX)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every device's slot."""
        return tuple(self._slots)

    @property
    def devices_known(self) -> bool:
        """Whether a worker has told which devices there are."""
        return self._devices_known

    def devices(self) -> list[Device]:
        """The devices as the wire tells them."""
        return [
            Device(
                id=slot.device.id,
                name=slot.device.name[:256],
                worker=slot.state,
                memory_bytes=slot.device.memory_bytes,
            )
            for slot in self._slots
            if slot.device.id
        ]

    def live(self) -> Iterator[Worker]:
        """Workers that are starting, idle or busy."""
        for slot in self._slots:
            if slot.worker is not None:
                yield slot.worker

    def idle(self) -> Iterator[Worker]:
        """Workers that can take a job."""
        return (worker for worker in self.live() if worker.ready and not worker.job)

    @property
    def planner(self) -> Worker | None:
        """The planner's process, if there is one."""
        return self._planner.worker

    def start_planner(self) -> Worker:
        """The planner's process, started where there is none."""
        return self._planner.worker or self._start(self._planner)

    def retry(self) -> None:
        """Somebody asks for work: try the given-up slots again."""
        for slot in self._slots:
            if slot.down:
                slot.failures = 0
                slot.resume_at = 0.0

    def tick(self, now: float) -> None:
        """Start what is missing, and end the wait for pipes that outlive their process."""
        if self._stopping:
            return
        for slot in self._slots:
            if slot.worker is None and not slot.down and now >= slot.resume_at:
                self._start(slot)

    def receive(self, now: float, limit: int = 256) -> Iterator[tuple[Worker, link.FromWorker | Gone]]:
        """Messages of the workers, in the order each sent them; ``Gone`` is the last."""
        for _ in range(limit):
            try:
                number, body = self.inbox.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            worker = self._workers.get(int.from_bytes(number, "little"))
            if worker is None:
                continue
            if not body:
                yield from self._bury(worker, now)
                continue
            try:
                message = link.from_worker.decode(body)
            except (msgspec.MsgspecError, ValueError):
                _log.error("worker %d sent what is no message; it is replaced", worker.process.pid)
                worker.process.kill()
                continue
            if isinstance(message, link.Ready):
                self._welcome(worker, message)
            yield worker, message
        for worker in list(self._workers.values()):
            # A grandchild may hold the pipe open after the worker died.
            if worker.exited_for(now) > 1.0:
                yield from self._bury(worker, now)

    def stop(self) -> Iterator[tuple[Worker, link.FromWorker | Gone]]:
        """End every worker within about 2 s: first by asking, then by force.

        Yields:
            What they still tell, and ``Gone`` for each.
        """
        self._stopping = True
        for worker in self._workers.values():
            worker.hang_up()
        force_at = time.monotonic() + _COOPERATION_SECONDS
        forced = False
        while self._workers:
            now = time.monotonic()
            if now >= force_at and not forced:
                forced = True
                for worker in self._workers.values():
                    worker.process.kill()
            self.inbox.poll(50)
            yield from self.receive(now)
        self.inbox.close()

    def _start(self, slot: Slot) -> Worker:
        number = next(self._numbers)
        errors = self._log_folder / f"{slot.name}.err"
        if errors.exists() and errors.stat().st_size > _ERROR_FILE_LIMIT:
            errors.replace(errors.with_suffix(".err.1"))
        command = [
            *(sys.executable, "-m", "rest_backend.daemon.worker"),
            *("--parent", str(os.getpid())),
            *("--log", str(self._log_folder / f"{slot.name}.log")),
            *(("--planner",) if slot is self._planner else ()),
        ]
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                cwd=self._home,
                env=os.environ | {"REST_HOME": str(self._home)},
                start_new_session=True,
                # A daemon without console would make Windows open a window for each worker.
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        finally:
            os.close(descriptor)
        assert process.stdin is not None and process.stdout is not None
        worker = Worker(number, slot, process, link.LinkWriter(process.stdin))
        slot.worker = self._workers[number] = worker
        pump = (self._context, number, process.stdout)
        threading.Thread(target=_pump, args=pump, name=f"worker-{number}", daemon=True).start()
        _log.info("worker %d started: %s %s", process.pid, slot.name, slot.device.id)
        return worker

    def _welcome(self, worker: Worker, message: link.Ready) -> None:
        worker.ready = True
        worker.slot.failures = 0
        if self._devices_known or not message.devices:
            return
        self._devices_known = True
        self._slots[0].device = message.devices[0]
        self._slots.extend(
            Slot(f"worker-{number}", device) for number, device in enumerate(message.devices[1:], 1)
        )
        _log.info("devices: %s", ", ".join(device.id for device in message.devices))

    def _bury(self, worker: Worker, now: float) -> Iterator[tuple[Worker, Gone]]:
        worker.process.kill()  # its pipe is closed: whatever is left of it has no way to report
        try:
            worker.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            _log.error("worker %d cannot be ended by the system", worker.process.pid)
        worker.hang_up()
        del self._workers[worker.number]
        slot = worker.slot
        if slot.worker is worker:
            slot.worker = None
        if not worker.ready:
            slot.failures += 1
            slot.resume_at = now + _RESTART_SECONDS * 2**slot.failures
        log = _log.info if self._stopping else _log.warning
        log("worker %d ended with %s", worker.process.pid, worker.process.returncode)
        yield worker, Gone()


def _pump(context: zmq.Context[zmq.Socket[bytes]], number: int, pipe: IO[bytes]) -> None:
    """Pass one worker's messages to the broker's inbox; an empty body is its end."""
    prefix = number.to_bytes(8, "little")
    outbox = context.socket(zmq.PUSH)
    outbox.connect(_INBOX)
    try:
        while (body := link.read_body(pipe)) is not None:
            outbox.send_multipart([prefix, body])
        outbox.send_multipart([prefix, b""])
    finally:
        outbox.close()
        pipe.close()
