"""An engine of the client, a listener that remembers, and short time limits."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rest_qgis.client import ClientError, Engine, EngineState, JobListener, JobRequest, session
from tests.client import honest_peer


class Recorder(JobListener):
    """Remembers all it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.blocks: list[Any] = []
        self.notes: list[Any] = []
        self.threads: set[str] = set()
        self.ended = threading.Event()
        self.failure: tuple[str, str] | None = None

    def _note(self, name: str) -> None:
        self.events.append(name)
        self.threads.add(threading.current_thread().name)

    def submitted(self, job: Any) -> None:
        self._note("submitted")

    def progress(self, job: Any, progress: Any) -> None:
        self.notes.append(progress)
        self._note("progress")

    def rows(self, job: Any, rows: Any) -> None:
        self.blocks.append(rows)
        self._note("rows")

    def done(self, job: Any, done: Any) -> None:
        self._note("done")
        self.ended.set()

    def failed(self, job: Any, code: str, message: str) -> None:
        self.failure = (code, message)
        self._note("failed")
        self.ended.set()


class States:
    """Remembers the engine's states."""

    def __init__(self) -> None:
        self.all: list[EngineState] = []
        self._changed = threading.Condition()

    def __call__(self, state: EngineState) -> None:
        with self._changed:
            self.all.append(state)
            self._changed.notify_all()

    def wait(self, name: str, seconds: float = 20.0) -> EngineState:
        """The last state, once it has that name."""
        with self._changed:
            reached = self._changed.wait_for(lambda: self.all and self.all[-1].name == name, seconds)
        assert reached, f"never {name}: {self.all}"
        return self.all[-1]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def check_rows(listener: Recorder, blocks: int = 12) -> None:
    """Every block once, in order, with the right pixels in the right place."""
    assert [block.seq for block in listener.blocks] == list(range(blocks))
    for block in listener.blocks:
        assert (block.column, block.row) == (0, block.seq * honest_peer.BLOCK)
        assert (block.width, block.height) == (honest_peer.WIDTH, honest_peer.BLOCK)
        assert block.values == honest_peer.block_values(block.seq)


def ask(call: object) -> tuple[object, ClientError | None]:
    """The answer to a question with a callback."""
    answers: list[tuple[object, ClientError | None]] = []
    told = threading.Event()

    def answered(answer: object, error: ClientError | None) -> None:
        answers.append((answer, error))
        told.set()

    call(answered)
    assert told.wait(20)
    return answers[0]


@pytest.fixture
def request_of(tmp_path: Path) -> JobRequest:
    """A request whose paths a peer never opens."""
    return JobRequest(str(tmp_path / "scene.tif"), "kitsap-buildings", str(tmp_path / "classes.tif"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; no engine of this computer's user is ever found."""
    monkeypatch.delenv("REST_BACKEND", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def states() -> States:
    """The states of ``engine``."""
    return States()


@pytest.fixture
def engine(home: Path, states: States, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A client of ``home`` that tries again soon, and leaves slow machines their time."""
    monkeypatch.setattr(session, "TIMING", session.Timing(backoff=(0.02, 0.1)))
    with Engine(home, on_state=states) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For peers that never answer: short limits, for clients made before or after."""
    short = session.Timing(hello=0.3, contact=0.6, ping=0.1, unresponsive=0.3, backoff=(0.02, 0.1))
    monkeypatch.setattr(session, "TIMING", short)


def shut_down(home: Path) -> None:
    """End the daemon of a home as a user does; none need run."""
    errors: list[object] = []
    ended = threading.Event()
    with Engine(home) as engine:
        engine.shutdown(lambda error: (errors.append(error), ended.set()))
        assert ended.wait(60), "the daemon did not answer"
    assert errors == [None]


def stop_processes(home: Path) -> None:
    """Kill what was started in a home and takes no messages."""
    starts = home / "starts"
    for pid in starts.read_text().split() if starts.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
