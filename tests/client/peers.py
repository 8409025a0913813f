"""Purpose-built bad peers: each misbehaves in exactly one way.

Run as a program a peer stands in for ``rest-backend serve``; see :func:`write_command`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

from tests.client.honest_peer import Job, Peer


class SkippingPeer(Peer):
    """Leaves out block 3, the first ``times`` times."""

    times = 1

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        if seq == 3 and self.times:
            self.times -= 1
            return None
        return super().block(job, seq)


class DamagingPeer(Peer):
    """Sends block 3 with a wrong checksum, the first ``times`` times."""

    times = 1

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        header, payload = super().block(job, seq)
        if seq == 3 and self.times:
            self.times -= 1
            header["crc32"] ^= 1
        return header, payload


class BombPeer(Peer):
    """Sends a block that unpacks to far more than its window."""

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        payload = zlib.compress(bytes(16 * 1024 * 1024), 1)
        return self.header(job, seq, payload, "zlib"), payload


class HugePayloadPeer(Peer):
    """Sends a payload over the limit of the protocol."""

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        payload = bytes(2 * 1024 * 1024)
        return self.header(job, seq, payload, "raw"), payload


class OtherProtocolPeer(Peer):
    """Speaks protocols 2 and 3 and says so."""

    def on_hello(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(
            peer,
            message,
            type="goodbye",
            code="E_PROTOCOL",
            message="I speak 2 and 3 only.",
            supported=[2, 3],
        )


class LyingProtocolPeer(Peer):
    """Says welcome in a protocol nobody offered."""

    protocol = 2


class SilentPeer(Peer):
    """Takes every message and never answers."""

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        pass


class FallingSilentPeer(Peer):
    """Says welcome and takes jobs, then nothing more, while ``silent`` is set."""

    silent = threading.Event()

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        if message["type"] in ("hello", "submit") or not self.silent.is_set():
            super().answer(peer, message)

    def events(self, peer: bytes, job: Job) -> None:
        pass


class DyingPeer(Peer):
    """Dies after five blocks, once, before the job is done."""

    died = False

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        if seq == 5 and not self.died:
            self.died = True
            self._kill = True
            return None
        return super().block(job, seq)

    def events(self, peer: bytes, job: Job) -> None:
        if self.died:
            super().events(peer, job)


class ChattyPeer(Peer):
    """Sends messages of unknown types between all others."""

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, None, type="weather", sky="blue")
        super().answer(peer, message)
        self.say(peer, message, type="weather", job="job-0")


class BabblingPeer(Peer):
    """Answers everything but hello with ``count`` messages that are none, then properly."""

    count = 10
    nonsense = (
        b"",
        b"{",
        b"[]",
        b'{"type":"done"}',
        b'{"type":"done","type":"done"}',
        b'{"type": NaN}',
        b"\xff",
    )

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        if message["type"] != "hello":
            for index in range(self.count):
                self.raw(peer, self.nonsense[index % len(self.nonsense)])
        super().answer(peer, message)


class HangingUpPeer(Peer):
    """Says welcome and hangs up at the next message, every time."""

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        if message["type"] == "hello":
            super().answer(peer, message)
        else:
            self._kill = True


class KeylessPeer(Peer):
    """Refuses the very keys its connection file names."""

    accept_keys = False


class DyingProcessPeer(DyingPeer):
    """As a process: is gone in the middle of the first job of a home, as if killed."""

    def start(self) -> Peer:
        self.died = (self.home / "died").exists()
        journal = self.home / "jobs.json"
        for key, (name, fields) in (json.loads(journal.read_text()) if journal.exists() else {}).items():
            self.jobs[key] = Job(name, fields, key)
        return super().start()

    def on_submit(self, peer: bytes, message: dict[str, Any]) -> None:
        super().on_submit(peer, message)
        journal = {key: (job.name, job.fields) for key, job in self.jobs.items()}
        (self.home / "jobs.json").write_text(json.dumps(journal))

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        if seq == 5 and not self.died:
            (self.home / "died").touch()
            os._exit(9)
        return super().block(job, seq)


def write_command(folder: Path, peer: str) -> Path:
    """An executable that serves a peer of this module, for ``REST_BACKEND``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rest-backend"
    root = Path(__file__).resolve().parents[2]
    # Not by PYTHONPATH: the launcher takes that away, as it must.
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); from tests.client.peers import main; main({peer!r})"
    )
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    path.chmod(0o755)
    return path


def main(kind: str) -> None:
    """Serve a peer until it is shut down."""
    if sys.argv[1:] != ["serve"]:
        sys.exit(f"unexpected arguments {sys.argv[1:]}")
    home = Path(os.environ["REST_HOME"])
    with (home / "environment.json").open("w") as file:
        json.dump({"environment": dict(os.environ), "session": os.getsid(0), "pid": os.getpid()}, file)
    with (home / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    peer: Peer = globals()[kind](home)
    with peer:
        peer.stopped.wait()
