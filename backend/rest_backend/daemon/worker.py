"""The worker process: the only part of the daemon that runs operations.

One per device. The main thread computes; a second thread reads the broker's pipe,
so that a cancel, and the broker's end, are noticed in the middle of a job. What a
job computes goes to its spool file; the broker hears of each block after its bytes
are written.

Test hook: ``REST_WORKER_METHOD=module:function`` takes the operation from another
module, which must also have ``SegmentRequest`` and ``device_names()``. The suite uses it
to put slow and crashing operations into the real daemon.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import importlib
import logging
import logging.handlers
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil

from rest_backend.daemon import link
from rest_backend.daemon.spool import RowSpool
from rest_backend.errors import ResourceError, RestError
from rest_backend.threads import wait_passively
from rest_backend.wire.messages import HEADER_LIMIT, Window

_log = logging.getLogger("rest_backend.daemon.worker")

METHOD_VARIABLE = "REST_WORKER_METHOD"
_OWN_METHOD = "rest_backend.methods.segment:segment"
_PROGRESS_SECONDS = 0.1
_FAREWELL_SECONDS = 1.0
_SUMMARY_LIMIT = HEADER_LIMIT // 2
_PR_SET_PDEATHSIG = 1


class Operation:
    """The operation a worker runs.

    Args:
        path: ``module:function``.
    """

    def __init__(self, path: str) -> None:
        module_name, _, function = path.partition(":")
        module = importlib.import_module(module_name)
        self.function: Callable[..., Any] = getattr(module, function)
        self.request: Callable[..., Any] = module.SegmentRequest
        self.devices: Callable[[], list[link.ComputeDevice]] = _devices
        if path != _OWN_METHOD:
            self.devices = lambda: [link.ComputeDevice(id=name, name=name) for name in module.device_names()]


class Worker:
    """Runs jobs one after the other.

    Args:
        commands: The broker's pipe.
        reports: The pipe to the broker.
        log: File named in errors that are nobody's input.
    """

    def __init__(self, commands: IO[bytes], reports: IO[bytes], log: Path) -> None:
        self._commands = commands
        self._link = link.LinkWriter(reports)
        self._log_path = log
        self._runs: queue.SimpleQueue[link.Run] = queue.SimpleQueue()
        self._current = ""
        self._cancelled = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Load the operation, then run what the broker sends; ends with the process."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()
        operation = Operation(os.environ.get(METHOD_VARIABLE) or _OWN_METHOD)
        self._link.send(link.Ready(devices=operation.devices()))
        while True:
            self._run(operation, self._runs.get())

    def _listen(self) -> None:
        """Take the broker's messages; when it is gone, end the job and the process."""
        while (body := link.read_body(self._commands)) is not None:
            message = link.to_worker.decode(body)
            if isinstance(message, link.Run):
                with self._lock:
                    self._current = message.id
                    self._cancelled.clear()
                    self._idle.clear()
                self._runs.put(message)
            else:
                with self._lock:
                    if message.id == self._current:
                        self._cancelled.set()
        # Whatever the main thread does: it gets a moment to remove its files, then the process ends.
        self._cancelled.set()
        self._idle.wait(_FAREWELL_SECONDS)
        os._exit(0)

    def _run(self, operation: Operation, run: link.Run) -> None:
        _log.info("job %s begins on %s", run.id, run.device)
        job = _Job(run, self._link)
        try:
            summary = job.run(operation, self._cancelled.is_set)
            ending: link.LinkMessage = link.Finished(id=run.id, summary=summary)
        except RestError as error:
            ending = link.Broken(id=run.id, code=error.code, message=error.message)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it was, the job fails and the worker lives
            _log.exception("job %s failed", run.id)
            kind = type(error).__name__
            sentence = f"The engine made a mistake ({kind}); its log {self._log_path} tells more."
            ending = link.Broken(id=run.id, code="E_INTERNAL", message=sentence)
        finally:
            job.close()
        with self._lock:
            self._current = ""
        # Told before the process may end: a finished job must not run again.
        self._link.send(ending)
        with self._lock:
            if not self._current:  # the next job may be here already
                self._idle.set()
        _log.info("job %s ends: %s", run.id, type(ending).__name__)


class _Job:
    """One run of an operation and its callbacks."""

    def __init__(self, run: link.Run, writer: link.LinkWriter) -> None:
        self._run = run
        self._link = writer
        self._spool: RowSpool | None = None
        self._stage = ""
        self._told = 0.0

    def run(self, operation: Operation, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """Compute; returns the summary in JSON types."""
        job = self._run.job
        request = operation.request(
            scene=Path(job.scene),
            output=Path(job.output),
            model=job.model,
            memory_bytes=job.memory_bytes or None,
            device=self._run.device,
            window=job.window,
            bands=tuple(job.bands),
            aoi=Path(job.aoi) if job.aoi else None,
            resolution_m=job.resolution_m or None,
            context=job.context,
            confidence=Path(job.confidence) if job.confidence else None,
            probabilities=Path(job.probabilities) if job.probabilities else None,
        )
        summary = operation.function(
            request,
            on_progress=self._on_progress,
            on_start=self._on_start,
            on_rows=self._on_rows,
            cancelled=cancelled,
        )
        return _small(msgspec.to_builtins(asdict(summary), enc_hook=str))

    def close(self) -> None:
        """Close the spool file."""
        if self._spool is not None:
            self._spool.close()

    def _on_start(self, start: Any) -> None:
        column, row, width, height = map(int, start.window)
        window: Window = (column, row, width, height)
        known = self._run.window
        if known is not None and known != window:
            raise ResourceError(
                "E_SCENE_CHANGED", "The scene changed while the job was interrupted; run the job again."
            )
        paths = [str(Path(path).absolute()) for path in start.temporary_paths]
        self._link.send(link.Begun(id=self._run.id, window=window, temporary_paths=paths))
        self._spool = RowSpool(Path(self._run.spool), window, self._run.next_seq, self._run.offset)

    def _on_rows(self, product: str, row: int, values: Any) -> None:
        if self._spool is None:
            raise RuntimeError("rows came before the start")
        if values.ndim != 2 or str(values.dtype) != "uint8":
            raise TypeError(f"rows must be uint8 (height, width), not {values.dtype} {values.shape}")
        blocks = self._spool.append(int(row), values.tobytes())
        if blocks:
            self._link.send(link.Spooled(id=self._run.id, blocks=blocks))

    def _on_progress(self, progress: Any) -> None:
        now = time.monotonic()
        # A stripe may take a millisecond; a change of stage and a note are never left out.
        if progress.stage == self._stage and not progress.note and now - self._told < _PROGRESS_SECONDS:
            return
        self._stage, self._told = progress.stage, now
        self._link.send(
            link.Advanced(
                id=self._run.id,
                stage=progress.stage,
                rows_done=int(progress.rows_done),
                rows=int(progress.rows),
                rows_per_second=_finite(progress.rows_per_second) or 0.0,
                eta_seconds=_finite(progress.eta_seconds),
                device=str(progress.device)[:256],
                memory_bytes=int(progress.memory_bytes),
                note=str(progress.note)[:4096],
            )
        )


def _devices() -> list[link.ComputeDevice]:
    """Devices of this computer, best first."""
    import torch

    from rest_backend.methods.devices import choose_device, describe_device, device_names

    devices = []
    for name in device_names():
        device = choose_device(name)
        memory = psutil.virtual_memory().total
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory
        description = describe_device(device)
        devices.append(link.ComputeDevice(id=name, name=description, memory_bytes=int(memory)))
    return devices


def _finite(value: float | None) -> float | None:
    """A non-negative number JSON can hold, else None."""
    return float(value) if value is not None and math.isfinite(value) and value >= 0 else None


def _small(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary if it fits a header; lists and texts that are too long are left out, and named."""
    left_out = []
    while len(msgspec.json.encode(summary)) > _SUMMARY_LIMIT:
        longest = max(summary, key=lambda name: len(msgspec.json.encode(summary[name])))
        del summary[longest]
        left_out.append(longest)
        summary["left_out"] = left_out
    return summary


def _die_with(parent: int) -> None:
    """On Linux: be killed when the broker is, even while a library holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(0)


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Move the link away from the standard descriptors, so that no library can write into it."""
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, reports


def main(arguments: list[str] | None = None) -> None:
    """Entry of ``python -m rest_backend.daemon.worker``; started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="python -m rest_backend.daemon.worker", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process id of the broker")
    parser.add_argument("--log", type=Path, required=True, help="log file")
    options = parser.parse_args(arguments)
    wait_passively()
    _die_with(options.parent)
    commands, reports = _take_pipes()
    faulthandler.enable()
    options.log.touch(mode=0o600)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[
            logging.handlers.RotatingFileHandler(
                options.log, maxBytes=5 * 1024 * 1024, backupCount=3, encoding="utf-8"
            )
        ],
    )
    Worker(commands, reports, options.log).serve()


if __name__ == "__main__":
    main()
