"""Plan: what a segmentation would read, hold, write and take, and what stands in its way.

The network is loaded and captured as for the job itself, so stripes, context and memory are
those of the job; how long it takes is measured on a small sweep and a few rows of the scene.
Nothing is written.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rest_backend.engine import Plan
from rest_backend.errors import CancelledError, InputError, ResourceError, RestError
from rest_backend.methods.budget import Budget, make_budget, plan_sweep
from rest_backend.methods.context import Context, choose_context, context_notes
from rest_backend.methods.devices import choose_device, describe_device
from rest_backend.methods.memory import memory_errors, release_unused
from rest_backend.methods.network_input import NetworkInput, Normalisation
from rest_backend.methods.outputs import DiskBytes, ResultFiles, disk_bytes
from rest_backend.methods.products import Products
from rest_backend.methods.request import Cancelled, SegmentRequest, Window
from rest_backend.methods.speed import seconds_per_pixel
from rest_backend.methods.subject import Subject, open_subject
from rest_backend.rasters.bands import SceneBand
from rest_backend.rasters.statistics import BLOCK as STATISTICS_BLOCK

__all__ = ["PlanRequest", "PlanSummary", "SegmentRequest", "plan"]

_READ_ROWS = 64  # rows of the scene read to learn how fast that is
_BASIS = "network and reading measured on this computer"
_NO_BASIS = "not known: what this network computes on all rows at once does not grow with the pixels alone"
_SAMPLED_PIXELS = 64 * STATISTICS_BLOCK**2  # of the statistics
_WRITE_SECONDS = 5e-8  # a pixel of a class map: compressing, overviews, reading back
_SCORE_SECONDS = 1e-7  # likewise of a band of scores, which compress worse

# As first measured: later captures of a size are remembered ones.
_capture_seconds: dict[tuple[str, int, int], float] = {}


@dataclass(frozen=True)
class PlanRequest:
    """What to plan.

    Attributes:
        segment: The segmentation that would be run.
    """

    segment: SegmentRequest


@dataclass(frozen=True)
class PlanSummary:
    """What the job would do, as ``rest-backend plan --json`` prints it.

    Attributes:
        scene: The raster file.
        model: Id of the model.
        width: Columns of the scene, in pixels.
        height: Its rows.
        count: Its bands.
        dtype: Stored type of the bands that are read.
        crs: Its coordinate reference system; empty without one.
        ground_resolution_m: Its metres per pixel on the ground; None where it does not tell.
        bands: The model's bands in its order, each as a ``BandMatch``.
        scene_bands: All bands of the file: number, name, role, wavelength_nm, dtype.
        window: Column, row, width, height of the result, in pixels of the scene.
        read_window: What is read of the scene for it, likewise.
        area_pixels: Pixels inside the area; None without one.
        run_width: Columns the network sees of what is read, in pixels.
        run_height: Its rows.
        resolution_m: Metres per pixel the network sees, as asked; None: the scene's own.
        context: ``scene`` or ``nearby``, as asked.
        exact: Whether the classes are those of the whole scene's run.
        device: Device the sweep would run on.
        device_name: Its name for people.
        stripe: Rows a stripe.
        phases: Sweeps over what is read.
        context_rows: Rows read before the first result row is final.
        fallback_ops: Operations that run whole for want of a row rule.
        memory_bytes: Predicted peak of the process's resident memory.
        memory_limit_bytes: Most it may take.
        smallest_memory_bytes: The smallest limit that works, in a process of its own too.
        output_bytes: Most bytes of all files of the result.
        disk_bytes: Most bytes needed while they are written.
        free_bytes: Bytes free where the output would go; None where that cannot be told.
        seconds: Expected seconds of the job; None where they cannot be foretold.
        seconds_basis: What this rests on.
        fits: Whether the job can run as it is.
        problems: What stands in its way: ``code`` and ``message``, which says what would have to change.
        notes: What the user should know.
    """

    scene: str
    model: str
    width: int
    height: int
    count: int
    dtype: str
    crs: str
    ground_resolution_m: float | None
    bands: list[dict[str, Any]]
    scene_bands: list[dict[str, Any]]
    window: Window
    read_window: Window
    area_pixels: int | None
    run_width: int
    run_height: int
    resolution_m: float | None
    context: Literal["scene", "nearby"]
    exact: bool
    device: str
    device_name: str
    stripe: int
    phases: int
    context_rows: int
    fallback_ops: list[str]
    memory_bytes: int
    memory_limit_bytes: int
    smallest_memory_bytes: int
    output_bytes: int
    disk_bytes: int
    free_bytes: int | None
    seconds: float | None
    seconds_basis: str
    fits: bool
    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(request: PlanRequest, cancelled: Cancelled | None = None) -> PlanSummary:
    """Find out what a segmentation would do.

    Args:
        request: What would be segmented.
        cancelled: Asked between the steps.

    Returns:
        All that can be known; bands, areas, outputs, memory or disk that do not suffice are
        among its problems.

    Raises:
        InputError: Scene, model or device cannot be used at all.
        ResourceError: Memory does not suffice to find out.
        CancelledError: ``cancelled`` said so.
    """
    with memory_errors("plan the job"):
        return _Planning(request.segment, cancelled).run()


class _Planning:
    def __init__(self, request: SegmentRequest, cancelled: Cancelled | None) -> None:
        self._request = request
        self._cancelled = cancelled
        self._device = choose_device(request.device)
        self._problems: list[RestError] = []

    def run(self) -> PlanSummary:
        release_unused()
        with open_subject(self._request, self._problems.append, self._cancelled) as subject:
            products = Products.of(self._request, subject.model.card)
            self._check_outputs(subject)
            self._check_cancelled()
            began = time.perf_counter()
            wanted = subject.grid.run_window(subject.window)
            context = choose_context(
                subject.model, subject.grid, wanted, self._request.context, self._check_cancelled
            )
            captured_in = time.perf_counter() - began
            limit, planes = self._request.memory_bytes, len(products.names)
            budget = make_budget(subject, context, planes, self._device, limit, self._spill_folder)
            plan = self._plan_sweep(context, budget)
            self._check_cancelled()
            seconds = self._seconds(subject, context, planes, captured_in)
            return self._summary(subject, context, budget, plan, seconds)

    def _check_outputs(self, subject: Subject) -> None:
        try:
            files = ResultFiles(self._request, subject.scene, subject.window, subject.model.card, {})
            files.check_space()
        except (InputError, ResourceError) as error:
            self._problems.append(error)

    def _plan_sweep(self, context: Context, budget: Budget) -> Plan:
        try:
            return plan_sweep(context.program, budget, self._spill_folder)
        except ResourceError as error:
            self._problems.append(error)
            smallest = context.program.smallest_memory(self._device, self._spill_folder)
            return context.program.plan(smallest, self._device, spill_folder=self._spill_folder)

    def _disk(self, subject: Subject, plan: Plan) -> tuple[DiskBytes, int | None]:
        """What the files need, tensors in mapped files with them, and what is free."""
        files = disk_bytes(self._request, subject.model.card, subject.window)
        stored = plan.stored_bytes if plan.spill_folder else 0
        folder = self._spill_folder
        if not folder.is_dir():  # told among the outputs
            return DiskBytes(files.while_written + stored, files.result), None
        free = shutil.disk_usage(folder).free
        if files.while_written <= free < files.while_written + stored:
            self._problems.append(
                ResourceError(
                    "E_DISK",
                    f"To stay below the memory limit, up to {stored / 1e6:,.0f} MB of tensors go to {folder}"
                    f" besides the result of {files.while_written / 1e6:,.0f} MB; {free / 1e6:,.0f} MB are"
                    " free. Raise the limit, make room, or write elsewhere.",
                )
            )
        return DiskBytes(files.while_written + stored, files.result), free

    def _seconds(self, subject: Subject, context: Context, planes: int, captured_in: float) -> float | None:
        """Expected seconds: capturing, reading, sweeping, writing."""
        columns, rows = context.window[2:]
        key = (subject.model.card.sha256, columns, rows)
        _capture_seconds.setdefault(key, captured_in)
        if context.program.layout.fallback:  # such operations may take more a pixel the more pixels there are
            return None
        sweeping = seconds_per_pixel(subject.model, self._device, columns, rows, self._check_cancelled)
        sampled = 0
        if subject.model.card.normalisation.method == "scene":
            sampled = min(_SAMPLED_PIXELS, subject.source.width * subject.source.height)
        reading = _reading_seconds(subject, context)
        writing = _WRITE_SECONDS + _SCORE_SECONDS * (planes - 1)
        return (
            _capture_seconds[key]
            + sweeping * columns * rows
            + reading * (columns * rows + sampled)
            + writing * subject.window[2] * subject.window[3]
        )

    def _summary(
        self,
        subject: Subject,
        context: Context,
        budget: Budget,
        plan: Plan,
        seconds: float | None,
    ) -> PlanSummary:
        request, scene = self._request, subject.scene
        disk, free = self._disk(subject, plan)
        return PlanSummary(
            scene=str(scene.path),
            model=subject.model.card.id,
            width=scene.width,
            height=scene.height,
            count=len(subject.scene_bands),
            dtype=", ".join(sorted(set(scene.dtypes))),
            crs=_crs_name(scene.crs),
            ground_resolution_m=subject.own_resolution,
            bands=[asdict(match) for match in subject.bands],
            scene_bands=[_band(band) for band in subject.scene_bands],
            window=subject.window,
            read_window=subject.grid.scene_window(context.window),
            area_pixels=None if subject.area is None else subject.area.pixels,
            run_width=subject.grid.seen(context.window)[2],
            run_height=subject.grid.seen(context.window)[3],
            resolution_m=request.resolution_m,
            context=request.context,
            exact=context.exact,
            device=str(self._device),
            device_name=describe_device(self._device),
            stripe=plan.stripe,
            phases=len(plan.phases),
            context_rows=min(plan.context_rows, context.window[3]),
            fallback_ops=list(plan.fallback_ops),
            memory_bytes=budget.process_bytes(plan.peak_bytes),
            memory_limit_bytes=budget.limit,
            smallest_memory_bytes=budget.smallest_told(context.program, self._spill_folder),
            output_bytes=disk.result,
            disk_bytes=disk.while_written,
            free_bytes=free,
            seconds=seconds,
            seconds_basis=_BASIS if seconds is not None else _NO_BASIS,
            fits=not self._problems,
            problems=[{"code": error.code, "message": error.message} for error in self._problems],
            notes=[*subject.notes, *context_notes(context, plan)],
        )

    @property
    def _spill_folder(self) -> Path:
        return Path(self._request.output).absolute().parent

    def _check_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise CancelledError


def _reading_seconds(subject: Subject, context: Context) -> float:
    """Seconds a pixel takes to be read and normalised, from rows in the middle of what is read."""
    zeros = np.zeros(subject.source.count)
    source = NetworkInput(subject.source, context.window, Normalisation(zeros, zeros + 1.0))
    height = subject.grid.seen(context.window)[3]
    start = max(0, height // 2 - _READ_ROWS)
    stop = min(height, start + _READ_ROWS)
    began = time.perf_counter()
    source.read_rows(start, stop)
    return (time.perf_counter() - began) / ((stop - start) * context.window[2])


def _band(band: SceneBand) -> dict[str, Any]:
    return {
        "number": band.number,
        "name": band.name,
        "role": band.role,
        "wavelength_nm": band.wavelength_nm,
        "dtype": band.dtype,
    }


def _crs_name(crs: Any) -> str:
    """Short name of a reference system; its definition where it has none; empty without one."""
    if crs is None:
        return ""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())
