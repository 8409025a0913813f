"""Kills of clients and daemons at random points of a job, and the proof that nothing was lost by them.

Before anything is submitted a key is noted. Whenever a client was killed a new process comes back with
that key; it is told all rows from the first on, whatever earlier ones were told. Used by
``test_kills.py`` and ``bench/kills.py``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from rest_backend.daemon.connection import read_connection
from rest_qgis.client import JobRequest, new_key
from tests.daemon.harness import REPOSITORY

PATIENCE = 240.0  # seconds; a busy machine is slow

Window = tuple[int, int, int, int]


@dataclass
class Outcome:
    """What happened to one job.

    Attributes:
        client_kills: Processes of clients that were killed.
        daemon_kills: Daemons that were killed.
        points: For each kill, the row blocks its client had been handed by then.
        blocks: Row blocks of the whole job.
        planes: The pixels of each product as the last client was handed them.
    """

    client_kills: int = 0
    daemon_kills: int = 0
    points: list[int] = field(default_factory=list)
    blocks: int = 0
    planes: dict[str, bytes] = field(default_factory=dict)


class Course:
    """One job and the clients that come back to it.

    Args:
        home: The daemon's home.
        command: Starts ``rest-backend``.
        request: The job.
        folder: For the clients' records, empty.
        window: Of the result.
    """

    def __init__(self, home: Path, command: Path, request: JobRequest, folder: Path, window: Window) -> None:
        self._home, self._command, self._folder, self._window = home, command, folder, window
        self._request = json.dumps(asdict(request))
        self._key = new_key()
        (folder / "key").write_text(self._key)  # as a plugin notes it in the project, before submit
        self._errors = folder / "errors"
        self._clients = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, kills: list[str], chance: random.Random, seconds: float) -> Outcome:
        """Kill, each after a random time of at most ``seconds``; then let the last client finish.

        Args:
            kills: ``client``, ``daemon`` (its client finds or starts the next one) or ``both``.
            chance: Of the points.
            seconds: A little longer than the job takes, so that an end may be hit too.

        Raises:
            AssertionError: A row is missing, came twice or differs from what an earlier client was told.
        """
        outcome = Outcome()
        for kill in kills:
            self._come_back()
            time.sleep(chance.uniform(0.0, seconds))
            outcome.points.append(self._handed())
            if kill in ("daemon", "both"):
                self._kill_daemon()
                outcome.daemon_kills += 1
            if kill in ("client", "both"):
                self._process.kill()
                self._process.wait()
                outcome.client_kills += 1
        self._come_back()
        assert self._process.wait(PATIENCE) == 0, self._errors.read_text()
        self._check(outcome)
        return outcome

    def _come_back(self) -> None:
        """A client that runs: the last one, or a new one where it was killed or saw the job done."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            assert self._process.returncode <= 0, self._errors.read_text()
        self._clients += 1
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.daemon.returning_client"),
                    *(str(self._home), str(self._command), self._key, self._request),
                    str(self._record(self._clients)),
                ],
                cwd=REPOSITORY,
                env={name: value for name, value in os.environ.items() if name != "REST_BACKEND"},
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )

    def _kill_daemon(self) -> None:
        """The daemon that is there; one that was not started yet is waited for."""
        deadline = time.monotonic() + PATIENCE
        while (daemon := running_daemon(self._home)) is None:
            assert time.monotonic() < deadline, "no daemon was started"
            self._come_back()
            time.sleep(0.02)
        daemon.kill()
        daemon.wait(PATIENCE)

    def _record(self, client: int) -> Path:
        return self._folder / f"client-{client}.jsonl"

    def _handed(self) -> int:
        path = self._record(self._clients)
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def _check(self, outcome: Outcome) -> None:
        told: dict[int, tuple[str, Window, bytes]] = {}
        for client in range(1, self._clients + 1):
            blocks = self._blocks(client)
            for expected, (seq, product, window, values) in enumerate(blocks):
                assert seq == expected, f"client {client} was handed block {seq} in place of {expected}"
                known = told.setdefault(seq, (product, window, values))
                assert known == (product, window, values), f"block {seq} is another one for client {client}"
            outcome.blocks = len(blocks)
        assert outcome.blocks == len(told), "the last client was not handed what earlier ones were"
        left, top, width, height = self._window
        planes = {product: bytearray(width * height) for product, _, _ in told.values()}
        times: dict[str, Counter[int]] = {product: Counter() for product in planes}
        for product, (column, row, block_width, block_height), values in told.values():
            for line in range(block_height):
                start = (row - top + line) * width + column - left
                planes[product][start : start + block_width] = values[
                    line * block_width : (line + 1) * block_width
                ]
                times[product].update(range(start, start + block_width))
        for product, counted in times.items():
            assert len(counted) == width * height, f"pixels of {product} are missing"
            assert set(counted.values()) == {1}, f"pixels of {product} came twice"
        outcome.planes = {product: bytes(plane) for product, plane in planes.items()}

    def _blocks(self, client: int) -> list[tuple[int, str, Window, bytes]]:
        """What a client was handed; of a block in whose middle it was killed nothing was recorded."""
        path = self._record(client)
        if not path.exists():
            return []
        blocks, offset = [], 0
        values = path.with_suffix(".bin").read_bytes()
        for line in path.read_bytes().split(b"\n")[:-1]:
            seq, product, (column, row, width, height) = json.loads(line)
            end = offset + width * height
            blocks.append((seq, product, (column, row, width, height), values[offset:end]))
            offset = end
        return blocks


def running_daemon(home: Path) -> psutil.Process | None:
    """The daemon of a home, if it serves."""
    connection = read_connection(home / "connection.json")
    if connection is None:
        return None
    try:
        process = psutil.Process(connection.pid)
        return process if abs(process.create_time() - connection.pid_start) < 1 else None
    except psutil.NoSuchProcess:
        return None


def end_daemon(home: Path) -> None:
    """In order, by its signal."""
    daemon = running_daemon(home)
    if daemon is not None:
        daemon.terminate()
        daemon.wait(PATIENCE)
