"""The client thread: finds or starts the daemon, keeps the link, serves requests and jobs.

One loop, never waiting for anything but sockets and its own clock. Its phases:

``idle`` (no link, none wanted) → ``starting`` (a process was started) →
``greeting`` (sockets are open, ``hello`` sent) → ``ready``; a lost link leads to
``pausing`` (back-off) and to the start again; ``shutdown`` leads through
``ending`` (the process is still there) back to ``idle``.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from .callbacks import tell
from .connection import Connection, read_connection, version_error
from .errors import ClientError
from .frames import PROTOCOL, decode, encode
from .jobs import JobTable
from .launcher import Launcher
from .questions import Question, Questions
from .schema import SchemaError, UnknownTypeError
from .transport import Link, Transport

_log = logging.getLogger("rest_qgis.client")


@dataclass(frozen=True)
class Timing:
    """Time limits of the client, in seconds; tests shorten them."""

    hello: float = 5.0  # for the answer to hello, before the link is tried again
    contact: float = 30.0  # without any answer, before requests are given up
    contact_with_jobs: float = 120.0  # the same while jobs are unfinished
    ping: float = 2.0  # of silence with something unfinished, before the daemon is asked for a sign of life
    unresponsive: float = 8.0  # of silence, before the user is told
    end: float = 15.0  # for the process to end after shutdown
    backoff: tuple[float, float] = (0.25, 10.0)  # shortest and longest pause between attempts


TIMING = Timing()
BAD_MESSAGES = 20  # in a row of one link, before the daemon is given up
BROKEN_LINKS = 6  # in a row, each within SHORT_LINK seconds of its welcome, before the daemon is given up
SHORT_LINK = 10.0
RESTARTS = 5  # of the daemon within RESTART_WINDOW seconds
RESTART_WINDOW = 120.0
_CLOSED = "The link to the engine was closed."
_BROKEN = "The link to the engine ended by a mistake; restart QGIS."


@dataclass(frozen=True)
class EngineState:
    """What the client knows of the engine.

    Attributes:
        name: ``stopped``, ``starting``, ``ready``, ``unresponsive``, ``failed``.
        code: Why it failed.
        message: The same as a sentence.
        version: Version of the daemon, once ready.
        pid: Its process, once ready.
    """

    name: str = "stopped"
    code: str = ""
    message: str = ""
    version: str = ""
    pid: int = 0


class Session(threading.Thread):
    """The thread.

    Args:
        home: The daemon's home.
        command: Tells the caller's setting of the command, or None, at every start.
        on_state: Told every change of the state, on this thread.
    """

    def __init__(
        self, home: Path, command: Callable[[], str | None], on_state: Callable[[EngineState], None]
    ) -> None:
        super().__init__(name="rest-client", daemon=True)
        self.state = EngineState()
        self.home = home
        self.jobs = JobTable(self._send)
        self._on_state = on_state
        self._transport = Transport()
        self._launcher = Launcher(home, command)
        self._commands: deque[Callable[[], None]] = deque()
        self._closing = False
        self._over = False  # nothing is taken any more
        self._gate = threading.Lock()  # between taking a command and being over
        self._phase = "idle"
        self._wanted = False
        self._link: Link | None = None
        self._last: Connection | None = None  # the daemon last spoken to
        self._questions = Questions(functools.partial(self._send, "control"))
        self._ping = ""
        self._until = 0.0  # end of the phase's time limit
        self._contact = 0.0  # when all is given up, while there is no link
        self._heard = 0.0
        self._look = 0.0
        self._attempts = 0  # since the last welcome
        self._broken = 0  # links in a row that broke soon
        self._welcomed = 0.0
        self._bad = 0
        self._starts: deque[float] = deque(maxlen=RESTARTS)

    # --- from any thread

    def post(self, command: Callable[[], None]) -> None:
        """Have the thread call something soon; raises ``E_CLIENT_CLOSED`` where the thread ended."""
        with self._gate:
            if self._over:
                raise ClientError("E_CLIENT_CLOSED", _BROKEN)
            self._commands.append(command)
        self._transport.wake()

    def close(self, timeout: float) -> None:
        """End the thread; waits at most ``timeout`` seconds."""
        self._closing = True
        self._transport.wake()
        if threading.current_thread() is not self:
            self.join(timeout)

    # --- commands, on this thread

    def want(self) -> None:
        """Have a daemon running."""
        self._wanted = self._phase != "ready"

    def ask(self, question: Question) -> None:
        """Send a question, now or once there is a link."""
        self._questions.add(question)
        if self._phase == "ready":
            self._questions.flush()

    # --- the loop

    def run(self) -> None:
        """Serve until closed."""
        try:
            while not self._closing:
                try:
                    while self._commands:
                        self._commands.popleft()()
                    self._receive()
                    self._step(time.monotonic())
                except ClientError as error:
                    self._give_up(error)
                if not self._commands and not self._closing:
                    self._transport.wait(self._link, self._pause())
        finally:
            self._end()

    def _end(self) -> None:
        """The thread ends, asked to or by a mistake: whoever waits is told, nobody waits for ever."""
        self._drop_link()
        self._launcher.end()
        self._transport.close()
        self._phase = "idle"
        with self._gate:
            self._over = True
        while self._commands:  # so that no job and no request is left out
            self._commands.popleft()()
        closed = ClientError("E_CLIENT_CLOSED", _CLOSED if self._closing else _BROKEN)
        if not self._closing:
            self._set_state(EngineState("failed", closed.code, closed.message))
        self._questions.ended(closed)
        self._questions.refuse(closed)
        self.jobs.abandon_all(closed)

    def _pause(self) -> float:
        if self._link is None:
            return 0.05 if self._phase != "idle" else 3600.0
        return 0.1 if self._busy() else 1.0

    def _busy(self) -> bool:
        """Whether someone waits for the daemon."""
        return bool(self._questions.open or self.jobs.unfinished)

    def _step(self, now: float) -> None:
        """Do what the phase asks for now."""
        if self._phase == "idle":
            if self._wanted or self._busy():
                self._contact = now + (TIMING.contact_with_jobs if self.jobs.unfinished else TIMING.contact)
                self._attempts = 0
                self._seek()
        elif self._phase == "starting":
            self._contact = max(self._contact, now + TIMING.contact)  # the launcher has a limit of its own
            connection = self._launcher.poll()
            if connection is not None:
                self._greet(connection)
        elif self._phase == "pausing":
            if now > self._until:
                self._seek()
        elif self._phase == "greeting":
            if now > self._until:
                self._retry("it does not answer")
        elif self._phase == "ending":
            self._watch_end(now)
        else:
            self._watch_link(now)

    def _seek(self) -> None:
        """Connect to the daemon that runs, else start one if someone needs it."""
        connection = read_connection(self.home)
        if connection is not None:
            self._greet(connection)
        elif self._wanted or self.jobs.unfinished or self._questions.launch:
            now = time.monotonic()
            if len(self._starts) == RESTARTS and now - self._starts[0] < RESTART_WINDOW:
                raise ClientError(
                    "E_ENGINE_START",
                    f"The engine ended {RESTARTS} times within {RESTART_WINDOW:.0f} seconds. The folder "
                    f"{self.home / 'log'} says why.",
                )
            self._starts.append(now)
            self._set_state(EngineState("starting"))
            self._launcher.begin()
            self._phase = "starting"
        else:
            self._phase = "idle"
            self._set_state(EngineState("stopped"))
            self._questions.refuse(ClientError("E_ENGINE_STOPPED", "The engine is not running."))

    def _greet(self, connection: Connection) -> None:
        if self.state.name not in ("starting", "unresponsive"):
            self._set_state(EngineState("starting"))
        self._link = Link(self._transport, connection)
        self._last = connection
        self._phase = "greeting"
        self._bad = 0
        self._until = time.monotonic() + TIMING.hello
        spoken = [PROTOCOL, PROTOCOL]
        self._send("control", "hello", protocols=spoken, client="rest_qgis", version=__version__)

    def _retry(self, why: str) -> None:
        """The link is no good: pause, then look for the daemon again."""
        refused = self._link is not None and self._link.refused
        self._drop_link()
        now = time.monotonic()
        if self._phase == "ready":
            self._contact = now + (TIMING.contact_with_jobs if self._busy() else TIMING.contact)
            self._broken = self._broken + 1 if now - self._welcomed < SHORT_LINK else 0
        self._attempts += 1
        if refused:
            raise ClientError(
                "E_ENGINE_KEYS",
                f"The engine refused the keys in its own connection file in {self.home}. Stop it and start "
                "it again.",
            )
        if now > self._contact:
            pid = self._last.pid if self._last else 0
            raise ClientError(
                "E_ENGINE_SILENT",
                f"The engine (process {pid}) runs but {why}. End that process and start the engine again.",
            )
        if self._broken >= BROKEN_LINKS:
            self._broken = 0
            raise ClientError(
                "E_ENGINE_LINK",
                f"The link to the engine broke {BROKEN_LINKS} times in a row. Stop the engine and start it "
                "again.",
            )
        shortest, longest = TIMING.backoff
        pause = min(longest, shortest * 2 ** (max(self._attempts, self._broken) - 1))
        self._until = now + pause * random.uniform(0.75, 1.25)  # nosec B311 - spreads attempts
        self._phase = "pausing"

    def _watch_link(self, now: float) -> None:
        self._questions.tick(now)
        self.jobs.tick(now)
        silence = now - self._heard
        if not self._busy() or silence < TIMING.ping or now < self._look:
            return
        self._look = now + TIMING.ping  # looking at a process is not cheap on every system
        if not self._ping:
            self._ping = self._send("control", "status")
            self._until = now + TIMING.contact_with_jobs
        if silence > TIMING.unresponsive and self.state.name == "ready":
            self._set_state(EngineState("unresponsive", version=self.state.version, pid=self.state.pid))
        if now > self._until or not (self._last and self._last.alive):
            self._retry("it does not answer")

    def _watch_end(self, now: float) -> None:
        if self._last is not None and self._last.alive:
            if now < self._until:
                return
            error = ClientError(
                "E_ENGINE_SILENT", f"The engine (process {self._last.pid}) said goodbye and does not end."
            )
            self._questions.ended(error)
            raise error
        self._phase = "idle"
        self._starts.clear()  # the limit is for an engine that crashes, not for a person who restarts it
        self._set_state(EngineState("stopped"))
        self._questions.ended(None)

    # --- messages

    def _receive(self) -> None:
        if self._link is None:
            return
        lost = self._link.lost()
        link = self._link
        while self._link is link:
            batch = link.receive()
            for frames in batch:
                if self._link is link:
                    self._take(frames)
            if not lost or not batch:
                break
        if lost and self._link is link:
            self._lost()

    def _lost(self) -> None:
        if self._questions.shutting_down:
            self._say_goodbye()  # it ended before its goodbye was out
        else:
            self._retry("closes the link again and again")

    def _take(self, frames: list[bytes]) -> None:
        try:
            message, payload = decode(frames)
        except UnknownTypeError as error:
            _log.info("ignored: %s", error)  # a newer daemon may say more than we know
            return
        except SchemaError as error:
            self._bad += 1
            _log.warning("bad message from the engine: %s", error)
            if self._bad >= BAD_MESSAGES:
                raise ClientError(
                    "E_ENGINE_PROTOCOL",
                    "The engine sends messages that make no sense. Stop it, and update engine and plugin to "
                    "the same release.",
                ) from error
            return
        self._heard = time.monotonic()
        kind = message["type"]
        if kind == "goodbye":
            self._on_goodbye(message)
        elif self._phase == "greeting":
            if kind == "welcome":
                self._on_welcome(message)
        elif self._phase == "ready":
            self._on_message(message, payload)

    def _on_welcome(self, message: dict[str, Any]) -> None:
        if message["protocol"] != PROTOCOL:
            raise version_error(message["version"], self._last.pid if self._last else 0, self.home)
        self._launcher.end()
        self._wanted = False
        self._phase = "ready"
        self._attempts = 0
        self._welcomed = time.monotonic()
        self._ping = ""
        pid = self._last.pid if self._last else 0
        self._set_state(EngineState("ready", version=message["version"], pid=pid))
        self.jobs.link_up()
        self._questions.flush()

    def _on_goodbye(self, message: dict[str, Any]) -> None:
        lowest, highest = message.get("supported", (PROTOCOL, PROTOCOL))
        if not lowest <= PROTOCOL <= highest:
            version, pid = (self._last.version, self._last.pid) if self._last else ("unknown", 0)
            raise version_error(version, pid, self.home)
        if self._phase == "greeting" or message["code"] in ("E_BUSY", "E_SLOW"):
            # It is just ending and the next one will answer, or it serves on and only this link is over.
            self._retry(f"it says: {message['message']}")
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """The daemon ends on purpose; wait for the process, so that a new one finds no locks."""
        self._drop_link()
        self._phase = "ending"
        self._until = time.monotonic() + TIMING.end
        self.jobs.fail_all(
            ClientError(
                "E_ENGINE_STOPPED",
                "The engine was stopped. The job goes on when it is started again.",
            )
        )

    def _on_message(self, message: dict[str, Any], payload: bytes | None) -> None:
        if self.state.name == "unresponsive":
            self._set_state(EngineState("ready", version=self.state.version, pid=self.state.pid))
        self._ping = ""  # any message is a sign of life
        if not self._questions.take(message):
            self.jobs.handle(message, payload)

    def _send(self, channel: str, kind: str, **fields: Any) -> str:
        if self._link is None:
            return ""
        name = uuid.uuid4().hex
        try:
            frames = encode({"type": kind, "request": name, **fields})
        except SchemaError as error:
            raise ClientError("E_REQUEST", f"A message to the engine cannot be sent: {error}.") from error
        self._link.send(channel, frames)
        return name

    # --- ends

    def _drop_link(self) -> None:
        self.jobs.link_down()
        if self._link is not None:
            self._link.close()
            self._link = None
        self._questions.link_down()

    def _give_up(self, error: ClientError) -> None:
        """Nothing can be done now: tell everyone, and wait for the next wish."""
        self._drop_link()
        self._launcher.end()
        self._phase = "idle"
        self._wanted = False
        self._set_state(EngineState("failed", error.code, error.message))
        self._questions.ended(error)
        self._questions.refuse(error)
        self.jobs.fail_all(error)

    def _set_state(self, state: EngineState) -> None:
        if state == self.state:
            return
        self.state = state
        tell(self._on_state, state)
