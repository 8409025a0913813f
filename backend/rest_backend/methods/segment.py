"""Segment a scene or a part of it: read, sweep, write, hand out finished rows on the way.

The scene is swept by :class:`rest_backend.engine.SceneProgram`, so every pixel sees
the whole scene as in one forward pass (REST, Chen et al., TPAMI 2025, made exact),
while neither the scene nor its scores are ever whole in memory. For a window or an area
as much around it is read as the network looks at, so that the classes inside do not
depend on where the border lies; statistics for the normalisation are the whole scene's.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rest_backend.engine import Plan
from rest_backend.errors import CancelledError, InputError, RestError
from rest_backend.methods.budget import make_budget, plan_sweep
from rest_backend.methods.context import Context, choose_context, context_notes
from rest_backend.methods.devices import choose_device, describe_device
from rest_backend.methods.memory import (
    memory_errors,
    peak_bytes,
    release_unused,
    reset_peak,
    resident_bytes,
)
from rest_backend.methods.network_input import NetworkInput, normalisation
from rest_backend.methods.outputs import ResultFiles
from rest_backend.methods.products import Products, ResultRows
from rest_backend.methods.provenance import provenance_tags
from rest_backend.methods.request import (
    Cancelled,
    OnProgress,
    OnRows,
    OnStart,
    SegmentProgress,
    SegmentRequest,
    SegmentStart,
    SegmentSummary,
)
from rest_backend.methods.subject import Subject, open_subject

__all__ = ["SegmentProgress", "SegmentRequest", "SegmentStart", "SegmentSummary", "segment"]

_LOOK_SECONDS = 1.0  # between two looks whether the scene's files are still those that were opened


def segment(
    request: SegmentRequest,
    on_progress: OnProgress | None = None,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
    cancelled: Cancelled | None = None,
) -> SegmentSummary:
    """Segment a scene and write its class map, and with it confidence and probabilities if asked for.

    Args:
        request: What to segment.
        on_progress: Called with :class:`SegmentProgress`.
        on_start: Called once with :class:`SegmentStart`, before the first row.
        on_rows: ``on_rows(product, row, values)`` with finished rows, uint8 ``(rows, width)``,
            255 where there is no result; ``row`` counts from the scene's top; no gap for each product.
        cancelled: Asked between stripes.

    Returns:
        What was done; all files are in place.

    Raises:
        InputError: The scene, the area, the bands, the model or an output cannot be used, or
            ``E_SCENE_CHANGED``: a file of the scene was altered while it was read.
        ResourceError: Memory, disk or the device does not suffice.
        CancelledError: ``cancelled`` said so.
        In each case nothing is left behind, and older results are as they were.
    """
    with memory_errors("segment the scene"):
        return _Segmentation(request, on_progress, on_start, on_rows, cancelled).run()


class _Segmentation:
    def __init__(
        self,
        request: SegmentRequest,
        on_progress: OnProgress | None,
        on_start: OnStart | None,
        on_rows: OnRows | None,
        cancelled: Cancelled | None,
    ) -> None:
        self._request = request
        self._on_progress, self._on_start = on_progress, on_start
        self._on_rows, self._cancelled = on_rows, cancelled
        self._device = choose_device(request.device)
        self._progress = SegmentProgress("loading", device=str(self._device))
        self._first_rows_at: float | None = None

    def run(self) -> SegmentSummary:
        began = time.perf_counter()
        release_unused()
        reset_peak()
        self._tell(stage="loading")
        with open_subject(self._request, _raise, self._is_cancelled) as subject:
            products = Products.of(self._request, subject.model.card)
            tags = provenance_tags(self._request, subject.model.card, subject.bands, subject.window)
            with ResultFiles(self._request, subject.scene, subject.window, subject.model.card, tags) as files:
                if self._on_start is not None:
                    window, paths = subject.window, files.temporary_paths
                    self._on_start(
                        SegmentStart(window, window[3], paths, products.names, subject.fingerprint)
                    )
                swept = self._sweep(subject, products, files)
                self._tell(stage="writing", rows_done=subject.window[3], eta_seconds=None)
                subject.scene.check_unchanged()
                files.finish()
        return self._summary(subject, swept, time.perf_counter() - began)

    def _sweep(self, subject: Subject, products: Products, files: ResultFiles) -> _Swept:
        try:
            return self._sweep_into(subject, products, files)
        except InputError:
            subject.scene.check_unchanged()  # damaged because it was replaced: that is what to tell
            raise

    def _sweep_into(self, subject: Subject, products: Products, files: ResultFiles) -> _Swept:
        request, card, rows = self._request, subject.model.card, subject.window[3]
        self._check_cancelled()
        self._tell(stage="statistics", rows=rows)
        values = normalisation(subject.source, card, request.seed, self._is_cancelled)
        subject.notes.extend(values.notes)
        self._check_cancelled()
        self._tell(stage="planning")
        wanted = subject.grid.run_window(subject.window)
        context = choose_context(subject.model, subject.grid, wanted, request.context, self._check_cancelled)
        spill_folder = Path(request.output).absolute().parent
        budget = make_budget(
            subject, context, len(products.names), self._device, request.memory_bytes, spill_folder
        )
        plan = plan_sweep(context.program, budget, spill_folder)
        subject.notes.extend(context_notes(context, plan))
        self._check_cancelled()
        self._tell(stage="sweep", note=" ".join(subject.notes))
        source = NetworkInput(subject.source, context.window, values)

        def hand_out(row: int, planes: NDArray[np.uint8]) -> None:
            files.write(row, planes)
            if self._on_rows is not None:
                for name, plane in zip(products.names, planes, strict=True):
                    self._on_rows(name, subject.window[1] + row, plane)
            if self._first_rows_at is None:
                self._first_rows_at = time.perf_counter()

        result = ResultRows(
            products, subject.grid, subject.window, context.window, source, subject.masks(), hand_out
        )
        began = looked = time.perf_counter()

        def after_stripe(done: int, stripes: int) -> None:
            nonlocal looked
            self._check_cancelled()
            now = time.perf_counter()
            if now - looked > _LOOK_SECONDS:
                subject.scene.check_unchanged()
                looked = now
            self._tell_sweep(result.done, rows, done / stripes, now - began)
            if result.done == rows and done < stripes:
                raise _Complete

        with suppress(_Complete):
            context.program.run(source.read_rows, result.take, plan, after_stripe)
        seconds = max(time.perf_counter() - began, 1e-9)
        first = ((self._first_rows_at or began) - began) / seconds
        return _Swept(context, plan, result.valid_pixels, seconds, first)

    def _summary(self, subject: Subject, swept: _Swept, seconds: float) -> SegmentSummary:
        request, plan = self._request, swept.plan
        seen = subject.grid.seen(swept.context.window)
        if swept.valid_pixels == 0:
            subject.notes.append("There is no data here: every pixel of the result is nodata.")
        return SegmentSummary(
            output=_absolute(request.output),
            confidence=None if request.confidence is None else _absolute(request.confidence),
            probabilities=None if request.probabilities is None else _absolute(request.probabilities),
            model=subject.model.card.id,
            bands=[asdict(match) for match in subject.bands],
            window=subject.window,
            read_window=subject.grid.scene_window(swept.context.window),
            run_width=seen[2],
            run_height=seen[3],
            context=request.context,
            exact=swept.context.exact,
            seconds=seconds,
            sweep_seconds=swept.seconds,
            rows_per_second=subject.window[3] / swept.seconds,
            first_rows_fraction=swept.first_rows_fraction,
            peak_rss_bytes=peak_bytes(),
            device=f"{self._device} ({describe_device(self._device)})",
            context_rows=min(plan.context_rows, swept.context.window[3]),
            stripe=plan.stripe,
            phases=len(plan.phases),
            fallback_ops=list(plan.fallback_ops),
            valid_pixels=swept.valid_pixels,
            area_pixels=None if subject.area is None else subject.area.pixels,
            notes=subject.notes,
        )

    def _is_cancelled(self) -> bool:
        return self._cancelled is not None and self._cancelled()

    def _check_cancelled(self) -> None:
        if self._is_cancelled():
            raise CancelledError

    def _tell_sweep(self, rows_done: int, rows: int, share: float, passed: float) -> None:
        remaining = passed / share * (1 - share) if share > 0 else None
        self._tell(
            rows_done=rows_done, rows_per_second=share * rows / max(passed, 1e-9), eta_seconds=remaining
        )

    def _tell(self, **changes: object) -> None:
        self._progress = replace(self._progress, note="", memory_bytes=resident_bytes())
        self._progress = replace(self._progress, **changes)  # type: ignore[arg-type]
        if self._on_progress is not None:
            self._on_progress(self._progress)


class _Complete(Exception):
    """No error: all rows of the result are done, those below it are not needed."""


@dataclass(frozen=True)
class _Swept:
    context: Context
    plan: Plan
    valid_pixels: int
    seconds: float
    first_rows_fraction: float


def _absolute(path: Path) -> str:
    return str(Path(path).absolute())


def _raise(error: RestError) -> None:
    raise error
