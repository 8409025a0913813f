"""Fixtures: a real daemon per test, and a check that nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.daemon.harness import Client, Daemon, wait_until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that runs the fake operation; not started yet. No process of it may survive the test."""
    made = Daemon(tmp_path / "home")
    yield made
    workers = made.workers() if made.process is not None else []
    made.end()
    wait_until(
        lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    )


@pytest.fixture
def served(daemon: Daemon) -> Iterator[Client]:
    """A client of a started daemon."""
    client = Client(daemon.start())
    yield client
    client.close()
