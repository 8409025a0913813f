"""What a segmentation is asked, what it tells on the way, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int, int, int]  # column, row, width, height in pixels
Stage = Literal["loading", "statistics", "planning", "sweep", "writing"]
ContextKind = Literal["scene", "nearby"]


@dataclass(frozen=True)
class SegmentRequest:
    """What to segment.

    Attributes:
        scene: Raster file.
        output: Class map to write, ``.tif``.
        model: Model id or path of a card.
        memory_bytes: Most resident memory of this process; None: 60 % of what is available.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        window: Column, row, width, height in pixels; None is the whole scene.
        seed: Of the sample the scene's statistics come from.
        bands: Bands of the scene, from 1, in the model's order; empty: matched by what they show.
        aoi: Vector file; only what its polygons cover gets a class.
        resolution_m: Metres per pixel the network shall see; None: the scene's own.
        context: What the pixels of an area may see: ``scene``, all that the network looks at, so
            that the classes are those of the whole scene; ``nearby``, a margin at most, for previews.
        confidence: Raster to write with the highest softmax of each pixel.
        probabilities: Raster to write with the softmax of every class.
    """

    scene: Path
    output: Path
    model: str
    memory_bytes: int | None = None
    device: str = "auto"
    window: Window | None = None
    seed: int = 0
    bands: tuple[int, ...] = ()
    aoi: Path | None = None
    resolution_m: float | None = None
    context: ContextKind = "scene"
    confidence: Path | None = None
    probabilities: Path | None = None


@dataclass(frozen=True)
class SegmentStart:
    """Told once, before the first row.

    Attributes:
        window: Column, row, width, height of the result in the scene, in pixels.
        rows: Its height.
        temporary_paths: Files that exist until the result is in place.
        products: Names of what is handed out: ``classes``, ``confidence``, ``probability-ID``.
        inputs: The same again as long as scene, area and model are; an interrupted job is only
            resumed with rows it handed out before where it is.
    """

    window: Window
    rows: int
    temporary_paths: tuple[Path, ...]
    products: tuple[str, ...]
    inputs: str


@dataclass(frozen=True)
class SegmentProgress:
    """Told at each stage and after each stripe.

    Attributes:
        stage: What is being done.
        rows_done: Result rows finished.
        rows: Result rows in all.
        rows_per_second: Scene rows swept per second so far.
        eta_seconds: Expected seconds to the last row, once known.
        device: Device the work runs on.
        memory_bytes: Resident memory of this process.
        note: Something the user should know.
    """

    stage: Stage
    rows_done: int = 0
    rows: int = 0
    rows_per_second: float = 0.0
    eta_seconds: float | None = None
    device: str = ""
    memory_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class SegmentSummary:
    """What was done, as ``rest-backend segment --json`` prints it.

    Attributes:
        output: The class map.
        confidence: The raster of each pixel's highest softmax; None when it was not asked for.
        probabilities: The raster of every class's softmax; None when it was not asked for.
        model: Id of the model.
        bands: The model's bands in its order and where each was read, as :class:`BandMatch`.
        window: Column, row, width, height of the result, in pixels of the scene.
        read_window: What was read of the scene for it, in pixels of the scene.
        run_width: Columns the network saw of it, in pixels: fewer or more where a resolution was asked for.
        run_height: Rows, likewise.
        context: What the pixels could see, as asked: ``scene`` or ``nearby``.
        exact: Whether the classes are those of the whole scene's run.
        seconds: From the request to the files in place.
        sweep_seconds: From the sweep's start to its last row.
        rows_per_second: Result rows per second of the sweep.
        first_rows_fraction: When the first rows were handed out, as a share of the sweep's time.
        peak_rss_bytes: Most resident memory of this process.
        device: Device the sweep ran on.
        context_rows: Rows the network read before the first result row was final.
        stripe: Rows per stripe.
        phases: Sweeps over what was read.
        fallback_ops: Operations that ran whole for want of a row rule.
        valid_pixels: Pixels with a class.
        area_pixels: Pixels inside the area; None without one.
        notes: What the user should know.
    """

    output: str
    confidence: str | None
    probabilities: str | None
    model: str
    bands: list[dict[str, Any]]
    window: Window
    read_window: Window
    run_width: int
    run_height: int
    context: ContextKind
    exact: bool
    seconds: float
    sweep_seconds: float
    rows_per_second: float
    first_rows_fraction: float
    peak_rss_bytes: int
    device: str
    context_rows: int
    stripe: int
    phases: int
    fallback_ops: list[str]
    valid_pixels: int
    area_pixels: int | None = None
    notes: list[str] = field(default_factory=list)


OnProgress = Callable[[SegmentProgress], None]
OnStart = Callable[[SegmentStart], None]
OnRows = Callable[[str, int, NDArray[np.uint8]], None]
Cancelled = Callable[[], bool]
MaskRows = Callable[[int, int], NDArray[np.bool_]]
