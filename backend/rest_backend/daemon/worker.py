"""The worker process: the only part of the daemon that runs operations.

One per device, which segments; and with ``--planner`` one more, which plans. The main
thread computes; a second thread reads the broker's pipe, so that a cancel, and the
broker's end, are noticed in the middle of a job. What a job computes goes to its spool;
the broker hears of each block after its bytes are written.

Test hooks: ``REST_WORKER_METHOD=module:function`` takes the operation from another
module, which must also have ``SegmentRequest`` and ``device_names()``;
``REST_PLANNER_METHOD`` does so for plans, its module has ``SegmentRequest`` and
``PlanRequest``. The suite uses them to put slow and crashing operations into the real daemon.
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
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import psutil

from rest_backend.daemon import link
from rest_backend.daemon.spool import Block, RowSpool, check_room, same_inputs
from rest_backend.errors import InputError, RestError
from rest_backend.threads import wait_passively
from rest_backend.wire.messages import HEADER_LIMIT, SegmentJob, Window

_log = logging.getLogger("rest_backend.daemon.worker")

METHOD_VARIABLE = "REST_WORKER_METHOD"
PLANNER_VARIABLE = "REST_PLANNER_METHOD"
_OWN_METHOD = "rest_backend.methods.segment:segment"
_OWN_PLANNER = "rest_backend.methods.plan:plan"
_PROGRESS_SECONDS = 0.1
_BLOCK_SECONDS = 0.05  # blocks of many products go into the journal together: each commit waits for the disk
_FAREWELL_SECONDS = 1.0
_SUMMARY_LIMIT = HEADER_LIMIT // 2
_PLAN_LIMIT = HEADER_LIMIT - 1024
_PR_SET_PDEATHSIG = 1


class Operation(Protocol):
    """What a worker does with the messages it is sent."""

    def ready(self) -> link.Ready:
        """First message to the broker, once everything is loaded."""
        ...

    def run(
        self, task: link.Run | link.Ask, writer: link.LinkWriter, cancelled: Callable[[], bool]
    ) -> link.LinkMessage:
        """Compute; returns the last message of it.

        Raises:
            RestError: What the operation refuses.
        """
        ...


class Segmentation:
    """Runs jobs on one device.

    Args:
        path: ``module:function``.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._module, self._function = _load(path)

    def ready(self) -> link.Ready:
        """Which devices there are."""
        if self._path == _OWN_METHOD:
            return link.Ready(devices=_devices())
        names = self._module.device_names()
        return link.Ready(devices=[link.ComputeDevice(id=name, name=name) for name in names])

    def run(
        self, task: link.Run | link.Ask, writer: link.LinkWriter, cancelled: Callable[[], bool]
    ) -> link.Finished:
        """Run a job."""
        assert isinstance(task, link.Run)
        job = _Job(task, writer)
        try:
            summary = self._function(
                _segment_request(self._module, task.job, task.device),
                on_progress=job.on_progress,
                on_start=job.on_start,
                on_rows=job.on_rows,
                cancelled=cancelled,
            )
        finally:
            job.close()
        return link.Finished(id=task.id, summary=_small(summary, _SUMMARY_LIMIT))


class Planning:
    """Answers questions for plans.

    Args:
        path: ``module:function``.
    """

    def __init__(self, path: str) -> None:
        self._module, self._function = _load(path)

    def ready(self) -> link.Ready:
        """The planner computes on no device."""
        return link.Ready(devices=[])

    def run(
        self, task: link.Run | link.Ask, writer: link.LinkWriter, cancelled: Callable[[], bool]
    ) -> link.Answered:
        """Plan a job."""
        # An output that is not chosen yet becomes a temporary file, in QGIS as in this answer.
        output = task.job.output or str(Path(tempfile.gettempdir()) / "classes.tif")
        job = msgspec.structs.replace(task.job, output=output)
        request = self._module.PlanRequest(_segment_request(self._module, job, job.device))
        return link.Answered(
            id=task.id, plan=_small(self._function(request, cancelled=cancelled), _PLAN_LIMIT)
        )


class Worker:
    """Runs tasks one after the other.

    Args:
        operation: Makes the operation; what it loads may take seconds.
        commands: The broker's pipe.
        reports: The pipe to the broker.
        log: File named in errors that are nobody's input.
    """

    def __init__(
        self, operation: Callable[[], Operation], commands: IO[bytes], reports: IO[bytes], log: Path
    ) -> None:
        self._operation = operation
        self._commands = commands
        self._link = link.LinkWriter(reports)
        self._log_path = log
        self._tasks: queue.SimpleQueue[link.Run | link.Ask] = queue.SimpleQueue()
        self._current = ""
        self._cancelled = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Load the operation, then run what the broker sends; ends with the process."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()
        operation = self._operation()
        self._link.send(operation.ready())
        while True:
            self._run(operation, self._tasks.get())

    def _listen(self) -> None:
        """Take the broker's messages; when it is gone, end the job and the process."""
        while (body := link.read_body(self._commands)) is not None:
            message = link.to_worker.decode(body)
            if isinstance(message, link.Run | link.Ask):
                with self._lock:
                    self._current = message.id
                    self._cancelled.clear()
                    self._idle.clear()
                self._tasks.put(message)
            else:
                with self._lock:
                    if message.id == self._current:
                        self._cancelled.set()
        # Whatever the main thread does: it gets a moment to remove its files, then the process ends.
        self._cancelled.set()
        self._idle.wait(_FAREWELL_SECONDS)
        os._exit(0)

    def _run(self, operation: Operation, task: link.Run | link.Ask) -> None:
        what = type(task).__name__
        _log.info("%s %s begins", what, task.id)
        try:
            ending = operation.run(task, self._link, self._cancelled.is_set)
        except RestError as error:
            ending = link.Broken(id=task.id, code=error.code, message=error.message)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it was, the job fails and the worker lives
            _log.exception("%s %s failed", what, task.id)
            kind = type(error).__name__
            sentence = f"The engine made a mistake ({kind}); its log {self._log_path} tells more."
            ending = link.Broken(id=task.id, code="E_INTERNAL", message=sentence)
        with self._lock:
            self._current = ""
        # Told before the process may end: a finished job must not run again.
        self._link.send(ending)
        with self._lock:
            if not self._current:  # the next job may be here already
                self._idle.set()
        _log.info("%s %s ends: %s", what, task.id, type(ending).__name__)


class _Job:
    """The callbacks of one job."""

    def __init__(self, run: link.Run, writer: link.LinkWriter) -> None:
        self._run = run
        self._link = writer
        self._spool: RowSpool | None = None
        self._blocks: list[Block] = []  # spooled and not told yet
        self._blocks_told = 0.0
        self._stage = ""
        self._told = 0.0

    def close(self) -> None:
        """Tell the last blocks and close the spool."""
        self._tell_blocks()
        if self._spool is not None:
            self._spool.close()

    def on_start(self, start: Any) -> None:
        """The window is known and the output is open."""
        column, row, width, height = map(int, start.window)
        window: Window = (column, row, width, height)
        spool = Path(self._run.spool)
        check_room(spool, len(start.products) * width * height - sum(self._run.offsets.values()))
        self._spool = RowSpool(spool, window, self._run.next_seq, self._run.offsets)
        known = self._run.window  # None where no row is journaled
        if known not in (None, window) or not same_inputs(spool, start.inputs, resumed=known is not None):
            raise InputError(
                "E_SCENE_CHANGED",
                "The scene, the area or the model changed while the job was interrupted; run the job again.",
            )
        paths = [str(Path(path).absolute()) for path in start.temporary_paths]
        self._link.send(link.Begun(id=self._run.id, window=window, temporary_paths=paths))

    def on_rows(self, product: str, row: int, values: Any) -> None:
        """Rows of a product are finished."""
        if self._spool is None:
            raise RuntimeError("rows came before the start")
        if values.ndim != 2 or str(values.dtype) != "uint8":
            raise TypeError(f"rows must be uint8 (height, width), not {values.dtype} {values.shape}")
        self._blocks += self._spool.append(product, int(row), values.tobytes())
        if time.monotonic() - self._blocks_told > _BLOCK_SECONDS:
            self._tell_blocks()

    def on_progress(self, progress: Any) -> None:
        """The job goes on."""
        self._tell_blocks()
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

    def _tell_blocks(self) -> None:
        blocks, self._blocks = self._blocks, []
        self._blocks_told = time.monotonic()
        if blocks:
            self._link.send(link.Spooled(id=self._run.id, blocks=blocks))


def _load(path: str) -> tuple[Any, Callable[..., Any]]:
    """The module and the function of ``module:function``."""
    name, _, function = path.partition(":")
    module = importlib.import_module(name)
    return module, getattr(module, function)


def _segment_request(module: Any, job: SegmentJob, device: str) -> Any:
    """The wire's job as the operation takes it."""
    return module.SegmentRequest(
        scene=Path(job.scene),
        output=Path(job.output),
        model=job.model,
        memory_bytes=job.memory_bytes or None,
        device=device,
        window=job.window,
        bands=tuple(job.bands),
        aoi=Path(job.aoi) if job.aoi else None,
        resolution_m=job.resolution_m or None,
        context=job.context,
        confidence=Path(job.confidence) if job.confidence else None,
        probabilities=Path(job.probabilities) if job.probabilities else None,
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


def _small(summary: Any, limit: int) -> dict[str, Any]:
    """A summary in JSON types, of at most ``limit`` bytes; what is too long is left out, and named."""
    small: dict[str, Any] = msgspec.to_builtins(asdict(summary), enc_hook=str)
    left_out: list[str] = []
    while len(msgspec.json.encode(small)) > limit:
        longest = max(small, key=lambda name: len(msgspec.json.encode(small[name])))
        del small[longest]
        left_out.append(longest)
        small["left_out"] = left_out
    return small


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


def _operation(planner: bool) -> Operation:
    if planner:
        return Planning(os.environ.get(PLANNER_VARIABLE) or _OWN_PLANNER)
    return Segmentation(os.environ.get(METHOD_VARIABLE) or _OWN_METHOD)


def main(arguments: list[str] | None = None) -> None:
    """Entry of ``python -m rest_backend.daemon.worker``; started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="python -m rest_backend.daemon.worker", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process id of the broker")
    parser.add_argument("--log", type=Path, required=True, help="log file")
    parser.add_argument("--planner", action="store_true", help="answer plans instead of running jobs")
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
    Worker(partial(_operation, options.planner), commands, reports, options.log).serve()


if __name__ == "__main__":
    main()
