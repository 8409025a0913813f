"""An honest peer on the wire's level, for others to be derived from.

A peer is a pair of real ROUTER sockets with CURVE, served by a thread, and a
connection file. It computes nothing: the rows of its jobs follow from their
number (:func:`block_values`).
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import zmq

from rest_qgis.client.connection import process_start

WIDTH = 64  # pixels of every scene
BLOCK = 4  # rows of every block


def block_values(seq: int) -> bytes:
    """Rows of block ``seq``: no two blocks are alike."""
    return bytes((seq * 7 + index) % 255 for index in range(WIDTH * BLOCK))


class Job:
    """A job in the peer's journal."""

    def __init__(self, name: str, fields: dict[str, Any], key: str = "") -> None:
        self.name = name
        self.fields = fields
        self.key = key
        self.state = "running"
        self.attached: bytes | None = None
        self.next_seq = 0
        self.credit = 0


class Peer:
    """An honest daemon; its journal outlives :meth:`crash` and :meth:`restart`.

    Args:
        home: Where ``connection.json`` goes.
        blocks: Row blocks of every job.
        pid: Process number for the connection file; default this process.
    """

    protocol = 1
    accept_keys = True

    def __init__(self, home: Path, blocks: int = 12, pid: int | None = None) -> None:
        self.home = home
        self.blocks = blocks
        self.pid = pid or os.getpid()
        self.jobs: dict[str, Job] = {}  # by key
        self.received: list[dict[str, Any]] = []
        self.attaches: list[dict[str, Any]] = []
        self.sent_rows: list[int] = []
        self.boots = 0
        self.stopped = threading.Event()
        self._thread: threading.Thread | None = None

    # --- life

    def start(self) -> Peer:
        """Bind, write the connection file, serve."""
        self.boots += 1
        self.context = zmq.Context()
        public, private = zmq.curve_keypair()
        client_public, client_private = zmq.curve_keypair()
        if not self.accept_keys:
            self._refuse_everyone()
        self.control, self.data = (self._router(public, private) for _ in range(2))
        for job in self.jobs.values():
            job.attached = None
        self._kill = False
        self.stopped.clear()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        connection = {
            "format": 1,
            "pid": self.pid,
            "pid_start": process_start(self.pid),
            "boot": uuid.uuid4().hex,
            "version": "9.9",
            "protocol": max(self.protocol, 1),
            "control": self.control.getsockopt_string(zmq.LAST_ENDPOINT),
            "data": self.data.getsockopt_string(zmq.LAST_ENDPOINT),
            "server_public": public.decode(),
            "client_public": client_public.decode(),
            "client_secret": client_private.decode(),
        }
        write_connection(self.home, connection)
        return self

    def crash(self) -> None:
        """End without a word; the connection file stays."""
        self._kill = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)

    def restart(self) -> None:
        """Crash, and come back on other ports with other keys."""
        self.crash()
        self.start()

    def __enter__(self) -> Peer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.crash()
        (self.home / "connection.json").unlink(missing_ok=True)

    # --- behaviour, for bad peers to change

    def answer(self, peer: bytes, message: dict[str, Any]) -> None:
        """Answer one message on control."""
        getattr(self, "on_" + message["type"])(peer, message)

    def block(self, job: Job, seq: int) -> tuple[dict[str, Any], bytes] | None:
        """Header and payload of a block; None leaves it out."""
        values = block_values(seq)
        payload = zlib.compress(values, 1) if seq % 2 else values
        return self.header(job, seq, payload, "zlib" if seq % 2 else "raw"), payload

    def header(self, job: Job, seq: int, payload: bytes, codec: str) -> dict[str, Any]:
        return {
            "type": "rows",
            "job": job.name,
            "seq": seq,
            "window": [0, seq * BLOCK, WIDTH, BLOCK],
            "codec": codec,
            "crc32": zlib.crc32(payload),
        }

    # --- messages

    def on_hello(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, message, type="welcome", protocol=self.protocol, version="9.9", boot=str(self.boots))

    def on_list_models(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, message, type="models", models=[{"id": "kitsap-buildings"}])

    def on_status(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(
            peer,
            message,
            type="daemon_status",
            version="9.9",
            boot=str(self.boots),
            pid=self.pid,
            uptime_seconds=1.0,
            devices=[],
            jobs=[],
        )

    def on_submit(self, peer: bytes, message: dict[str, Any]) -> None:
        made = Job(f"job-{len(self.jobs)}", message["job"], message["key"])
        job = self.jobs.setdefault(message["key"], made)
        self.say(peer, message, type="submitted", job=job.name, key=message["key"], state=job.state)
        self.events(peer, job)

    def on_watch(self, peer: bytes, message: dict[str, Any]) -> None:
        key = message.get("key", "")
        job = self.jobs.get(key) if key else self.by_name(message["job"])
        if job is None:
            self.unknown(peer, message)
            return
        self.say(peer, message, **self.job_status(job))
        if job.state in ("queued", "running"):
            self.events(peer, job)

    def on_plan(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, message, type="planned", plan={"scene": message["job"]["scene"], "fits": True})

    def on_delete(self, peer: bytes, message: dict[str, Any]) -> None:
        job = self.by_name(message["job"])
        if job is None:
            self.unknown(peer, message)
        elif job.state in ("queued", "running"):
            self.say(peer, message, type="error", code="E_JOB_RUNNING", message="It has not ended.")
        else:
            del self.jobs[job.key]
            self.say(peer, message, type="deleted", job=job.name)

    def on_cancel(self, peer: bytes, message: dict[str, Any]) -> None:
        job = self.by_name(message["job"])
        if job is None:
            self.unknown(peer, message)
            return
        job.state = "cancelled"
        self.say(peer, message, **self.job_status(job))
        self.say(peer, None, type="failed", job=job.name, code="E_CANCELLED", message="Cancelled.")

    def on_shutdown(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, message, type="goodbye", code="E_SHUTDOWN", message="The engine was stopped.")
        self._kill = True

    def events(self, peer: bytes, job: Job) -> None:
        """Tell that the job runs and is done at once: rows may still be under way."""
        self.say(
            peer, None, type="progress", job=job.name, stage="sweep", rows_done=4, rows=self.blocks * BLOCK
        )
        self.finish(peer, job)

    def finish(self, peer: bytes, job: Job) -> None:
        job.state = "done"
        summary = {"seconds": 1.5}
        self.say(
            peer,
            None,
            type="done",
            job=job.name,
            seq=self.blocks,
            output=job.fields["output"],
            summary=summary,
        )

    def job_status(self, job: Job) -> dict[str, Any]:
        paths = {name: job.fields[name] for name in ("scene", "model", "output")}
        status = {"type": "job_status", "job": job.name, "state": job.state, "next_seq": self.blocks, **paths}
        if job.state == "failed":
            status |= {"code": "E_SCENE_MISSING", "message": "There is no such scene."}
        return {**status, "key": job.key, "asked": job.fields}

    # --- mechanics

    def by_name(self, name: str) -> Job | None:
        return next((job for job in self.jobs.values() if job.name == name), None)

    def unknown(self, peer: bytes, message: dict[str, Any]) -> None:
        self.say(peer, message, type="error", code="E_UNKNOWN_JOB", message="There is no such job.")

    def say(self, peer: bytes, request: dict[str, Any] | None, **message: Any) -> None:
        if request is not None:
            message["request"] = request.get("request", "")
        self.raw(peer, json.dumps(message).encode())

    def raw(self, peer: bytes, header: bytes, magic: bytes = b"REST1") -> None:
        self.control.send_multipart([peer, magic, header])

    def _router(self, public: bytes, private: bytes) -> Any:
        router = self.context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_PUBLICKEY, public)
        router.setsockopt(zmq.CURVE_SECRETKEY, private)
        if not self.accept_keys:
            router.setsockopt(zmq.ZAP_DOMAIN, b"rest")
        router.bind("tcp://127.0.0.1:*")
        return router

    def _refuse_everyone(self) -> None:
        handler = self.context.socket(zmq.REP)
        handler.bind("inproc://zeromq.zap.01")

        def refuse() -> None:
            try:
                while True:
                    frames = handler.recv_multipart()
                    handler.send_multipart([b"1.0", frames[1], b"400", b"no", b"", b""])
            except zmq.ZMQError:
                handler.close(0)

        threading.Thread(target=refuse, daemon=True).start()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self.control, zmq.POLLIN)
        poller.register(self.data, zmq.POLLIN)
        while not self._kill:
            ready = dict(poller.poll(10))
            if self.control in ready and not self._kill:
                peer, _, header = self.control.recv_multipart()
                message = json.loads(header)
                self.received.append(message)
                self.answer(peer, message)
            if self.data in ready:
                peer, _, header = self.data.recv_multipart()
                self._on_data(peer, json.loads(header))
            self._send_rows()
        time.sleep(0.05)  # what was said last still goes out
        self.control.close(0)
        self.data.close(0)
        self.context.term()
        self.stopped.set()

    def _on_data(self, peer: bytes, message: dict[str, Any]) -> None:
        job = self.by_name(message["job"])
        if job is None:
            error = {
                "type": "error",
                "request": message["request"],
                "code": "E_UNKNOWN_JOB",
                "message": "None.",
            }
            self.data.send_multipart([peer, b"REST1", json.dumps(error).encode()])
            return
        if message["type"] == "attach":
            self.attaches.append(message)
            job.attached, job.next_seq, job.credit = peer, message["seq"], message["credit"]
        else:
            job.credit += message["credit"]
        assert 0 <= job.credit <= 32, "the client grants more than the protocol allows"

    def _send_rows(self) -> None:
        for job in self.jobs.values():
            while job.attached and job.credit > 0 and job.next_seq < self.blocks and not self._kill:
                seq = job.next_seq
                made = self.block(job, seq)
                job.next_seq += 1
                if made is None:
                    continue
                header, payload = made
                job.credit -= 1
                self.sent_rows.append(seq)
                self.data.send_multipart([job.attached, b"REST1", json.dumps(header).encode(), payload])


def write_connection(home: Path, connection: dict[str, Any], mode: int = 0o600) -> Path:
    """Write a connection file as the daemon does: complete, then in place."""
    path = home / "connection.json"
    temporary = home / "connection.new"
    temporary.write_text(json.dumps(connection))
    temporary.chmod(mode)
    temporary.replace(path)
    return path
