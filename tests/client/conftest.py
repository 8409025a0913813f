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

from rest_qgis.client import Engine, EngineState, JobListener, JobRequest, session


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
    """A client of ``home`` that loses its patience soon."""
    quick = session.Timing(
        hello=0.5,
        contact=1.0,
        contact_with_jobs=3.0,
        request=2.0,
        ping=0.2,
        unresponsive=0.6,
        backoff=(0.02, 0.1),
    )
    monkeypatch.setattr(session, "TIMING", quick)
    with Engine(home, on_state=states) as made:
        yield made


def stop_processes(home: Path) -> None:
    """Kill the peers that were started in a home."""
    starts = home / "starts"
    for pid in starts.read_text().split() if starts.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
