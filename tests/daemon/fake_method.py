"""An operation for the tests: it runs in the real worker of the real daemon and misbehaves on demand.

The job's ``model`` is a query string: ``height=100&width=64&stripe=10&fault=...``. ``products`` are
separated by commas. A ``gate`` is a file it waits for, so that tests decide when something happens, not a
clock; ``pause`` makes each stripe take that many seconds, so that something can happen at a random moment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from rest_backend.daemon import spool
from rest_backend.errors import CancelledError, InputError, ResourceError


def device_names() -> list[str]:
    start = os.environ.get("FAKE_START", "")
    if start == "crash":
        os._exit(3)
    if start.startswith("once:"):  # the first worker of all starts, no other does
        mark = Path(start.removeprefix("once:"))
        if mark.exists():
            os._exit(3)
        mark.touch()
    return os.environ.get("FAKE_DEVICES", "cpu").split(",")


@dataclass(frozen=True)
class SegmentRequest:
    scene: Path
    output: Path
    model: str
    memory_bytes: int | None = None
    device: str = "auto"
    window: tuple[int, int, int, int] | None = None
    seed: int = 0
    bands: tuple[int, ...] = ()
    aoi: Path | None = None
    resolution_m: float | None = None
    context: str = "scene"
    confidence: Path | None = None
    probabilities: Path | None = None


@dataclass(frozen=True)
class SegmentStart:
    window: tuple[int, int, int, int]
    rows: int
    temporary_paths: tuple[Path, ...]
    products: tuple[str, ...]
    inputs: str


@dataclass(frozen=True)
class SegmentProgress:
    stage: str
    rows_done: int = 0
    rows: int = 0
    rows_per_second: float = float("nan")
    eta_seconds: float | None = None
    device: str = ""
    memory_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class SegmentSummary:
    output: str
    device: str
    memory_bytes: int | None
    attempt_file: str
    valid_pixels: int


def class_rows(window: tuple[int, int, int, int], start: int, stop: int, noise: bool) -> np.ndarray:
    """The rows any attempt must give: a function of the pixel alone."""
    left, _, width, _ = window
    row, column = np.mgrid[start:stop, left : left + width].astype(np.uint64)
    if noise:
        mixed = row * np.uint64(1 << 32) + column
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return (mixed >> np.uint64(56)).astype(np.uint8)
    return ((row // 16 + column // 16) % 7).astype(np.uint8)


def product_rows(
    product: str, window: tuple[int, int, int, int], start: int, stop: int, noise: bool = False
) -> np.ndarray:
    """Rows of a product: classes, or a plane that differs from product to product."""
    if product == "classes":
        return class_rows(window, start, stop, noise)
    shift = 0 if product == "confidence" else 1 + int(product.removeprefix("probability-"))
    left, _, width, _ = window
    row, column = np.mgrid[start:stop, left : left + width]
    return ((row * 3 + column * 5 + shift * 17) % 255).astype(np.uint8)


def segment(
    request: SegmentRequest,
    on_progress: Callable[[Any], None],
    on_start: Callable[[Any], None],
    on_rows: Callable[[str, int, np.ndarray], None],
    cancelled: Callable[[], bool],
) -> SegmentSummary:
    options = dict(parse_qsl(request.model))
    fault = options.get("fault", "")
    print("a library that prints to stdout", flush=True)
    os.write(1, b"and one that writes to descriptor 1\n")
    if fault == "spool_full":
        _fill_the_spools_disk()
    if fault == "input":
        raise InputError("E_SCENE_MISSING", f"There is no file {request.scene}.")
    marks = request.output.with_suffix(".attempts")
    attempt = marks.stat().st_size if marks.exists() else 0
    with marks.open("ab") as file:
        file.write(b"x")
    if fault == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    on_progress(SegmentProgress("loading", device=request.device))
    if options.get("gate_stage") == "loading":
        _misbehave(options, attempt, cancelled)
    window = request.window or (0, 0, int(options.get("width", 64)), int(options.get("height", 100)))
    temporary = request.output.with_suffix(f".part{os.getpid()}")
    temporary.write_bytes(b"rows to come")
    products = tuple(options.get("products", "classes").split(","))
    try:
        inputs = request.scene.read_text() if request.scene.exists() else ""
        on_start(SegmentStart(window, window[3], (temporary,), products, inputs))
        _sweep(options, attempt, window, products, on_progress, on_rows, cancelled)
        temporary.write_bytes(
            class_rows(window, window[1], window[1] + window[3], "noise" in options).tobytes()
        )
        on_progress(SegmentProgress("writing", window[3], window[3]))
        temporary.replace(request.output)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return SegmentSummary(
        str(request.output), request.device, request.memory_bytes, str(marks), window[2] * window[3]
    )


def _sweep(
    options: dict[str, str],
    attempt: int,
    window: tuple[int, int, int, int],
    products: tuple[str, ...],
    on_progress: Callable[[Any], None],
    on_rows: Callable[[str, int, np.ndarray], None],
    cancelled: Callable[[], bool],
) -> None:
    top, height = window[1], window[3]
    stripe = int(options.get("stripe2" if attempt else "stripe", options.get("stripe", "10")))
    fault_row = int(options.get("fault_row", height // 2))
    for start in range(0, height, stripe):
        stop = min(start + stripe, height)
        time.sleep(float(options.get("pause", 0)))
        if stop > fault_row and start <= fault_row:
            _misbehave(options, attempt, cancelled)
        if cancelled() and options.get("fault") != "stubborn":
            raise CancelledError
        for product in products:
            values = product_rows(product, window, top + start, top + stop, "noise" in options)
            on_rows(product, top + start, values)
        on_progress(SegmentProgress("sweep", stop, height, note="no CRS" if start == 0 else ""))


def _misbehave(options: dict[str, str], attempt: int, cancelled: Callable[[], bool]) -> None:
    fault, gate = options.get("fault", ""), options.get("gate")
    if fault == "raise":
        raise ValueError("a mistake")
    if fault == "changed":
        raise InputError("E_SCENE_CHANGED", "The scene changed while it was read; run the job again.")
    if fault == "disk_full":
        raise ResourceError("E_DISK_FULL", "The disk is full; 123 bytes are free.")
    if fault == "once" and attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    while gate and not Path(gate).exists() and (attempt == 0 or "gate_always" in options):
        if cancelled() and fault != "stubborn":
            raise CancelledError
        time.sleep(0.01)


class FullFile(FileIO):
    """Linux's device without room; it cannot be made shorter either."""

    def truncate(self, size: int | None = None) -> int:
        return 0


def _fill_the_spools_disk() -> None:
    """Every spool file opened from now on is a real file on a device that has no room left."""
    opened = spool._open

    def full(path: Path) -> FileIO:
        opened(path).close()
        return FullFile("/dev/full", "r+b")

    spool._open = full
