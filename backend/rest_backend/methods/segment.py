"""Segment a whole scene: read, sweep, write, hand out finished rows on the way.

The scene is swept by :class:`rest_backend.engine.SceneProgram`, so every pixel sees
the whole scene as in one forward pass (REST, Chen et al., TPAMI 2025, made exact),
while neither the scene nor its scores are ever whole in memory.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

import rest_backend
from rest_backend.engine import Plan, SceneProgram
from rest_backend.errors import CancelledError, InputError, ResourceError
from rest_backend.methods.devices import choose_device, describe_device
from rest_backend.methods.memory import (
    available_bytes,
    memory_errors,
    peak_bytes,
    release_unused,
    reset_peak,
    resident_bytes,
)
from rest_backend.methods.scene_input import SceneInput, Window, reading_bytes
from rest_backend.models.card import ModelCard
from rest_backend.models.network import minimum_size, required_multiple
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import InstalledModel, find_model
from rest_backend.rasters.classmap import ClassMapWriter
from rest_backend.rasters.scene import Scene, open_scene

NODATA = 255
Stage = Literal["loading", "statistics", "planning", "sweep", "writing"]

_RESERVE_BYTES = 90_000_000  # class rows, and what torch's kernels take besides tensors
_SHARE_OF_AVAILABLE = 0.6
_SHARE_OF_CUDA = 0.9  # of the device's free memory


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
    context: Literal["scene", "nearby"] = "scene"
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
    """

    window: Window
    rows: int
    temporary_paths: tuple[Path, ...]
    products: tuple[str, ...] = ("classes",)


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
        model: Id of the model.
        seconds: From the request to the file in place.
        sweep_seconds: From the sweep's start to its last row.
        rows_per_second: Result rows per second of the sweep.
        first_rows_fraction: When the first rows were handed out, as a share of the sweep's time.
        peak_rss_bytes: Most resident memory of this process.
        device: Device the sweep ran on.
        context: What every pixel could see: ``scene``, or ``window``.
        context_rows: Scene rows read before the first result row was final.
        stripe: Scene rows per stripe.
        phases: Sweeps over the scene.
        fallback_ops: Operations that ran whole for want of a row rule.
        valid_pixels: Pixels with a class.
        notes: What the user should know.
    """

    output: str
    model: str
    seconds: float
    sweep_seconds: float
    rows_per_second: float
    first_rows_fraction: float
    peak_rss_bytes: int
    device: str
    context: str
    context_rows: int
    stripe: int
    phases: int
    fallback_ops: list[str]
    valid_pixels: int
    notes: list[str] = field(default_factory=list)


OnProgress = Callable[[SegmentProgress], None]
OnStart = Callable[[SegmentStart], None]
OnRows = Callable[[str, int, NDArray[np.uint8]], None]
Cancelled = Callable[[], bool]


def segment(
    request: SegmentRequest,
    on_progress: OnProgress | None = None,
    on_start: OnStart | None = None,
    on_rows: OnRows | None = None,
    cancelled: Cancelled | None = None,
) -> SegmentSummary:
    """Segment a scene and write its class map.

    Args:
        request: What to segment.
        on_progress: Called with :class:`SegmentProgress`.
        on_start: Called once with :class:`SegmentStart`, before the first row.
        on_rows: ``on_rows(product, row, values)`` with finished rows, uint8 ``(rows, width)``,
            255 where there is no result; ``row`` counts from the scene's top; no gap.
        cancelled: Asked between stripes.

    Returns:
        What was done.

    Raises:
        InputError: The scene, the model or the output folder cannot be used.
        ResourceError: Memory, disk or the device does not suffice.
        CancelledError: ``cancelled`` said so; nothing is left behind.
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
        self._notes: list[str] = []
        self._handed = 0
        self._valid_pixels = 0
        self._first_rows_at: float | None = None
        self._sweep_start = 0.0

    def run(self) -> SegmentSummary:
        began = time.perf_counter()
        release_unused()
        reset_peak()
        self._tell(stage="loading")
        installed = find_model(self._request.model)
        card = installed.card
        with open_scene(self._request.scene) as whole:
            bands = _choose_bands(whole, card, self._notes)
        with open_scene(self._request.scene, bands) as scene:
            self._notes += scene.notes
            window = _check_window(self._request.window, scene)
            with ClassMapWriter(
                self._request.output,
                scene,
                window,
                card.classes,
                _provenance(self._request, installed, bands),
            ) as writer:
                if self._on_start is not None:
                    self._on_start(SegmentStart(window, window[3], tuple(writer.temporary_paths)))
                plan, seconds = self._sweep_into(writer, scene, installed, window)
                self._tell(stage="writing", rows_done=window[3], eta_seconds=None)
                writer.finish()
        if self._valid_pixels == 0:
            self._notes.append("The scene holds no data: every pixel of the result is nodata.")
        return SegmentSummary(
            output=str(Path(self._request.output).absolute()),
            model=card.id,
            seconds=time.perf_counter() - began,
            sweep_seconds=seconds,
            rows_per_second=window[3] / max(seconds, 1e-9),
            first_rows_fraction=((self._first_rows_at or 0.0) - self._sweep_start) / max(seconds, 1e-9),
            peak_rss_bytes=peak_bytes(),
            device=f"{self._device} ({describe_device(self._device)})",
            context="scene" if window == (0, 0, scene.width, scene.height) else "window",
            context_rows=min(plan.context_rows, window[3]),
            stripe=plan.stripe,
            phases=len(plan.phases),
            fallback_ops=list(plan.fallback_ops),
            valid_pixels=self._valid_pixels,
            notes=self._notes,
        )

    def _sweep_into(
        self, writer: ClassMapWriter, scene: Scene, installed: InstalledModel, window: Window
    ) -> tuple[Plan, float]:
        card = installed.card
        padded = _padded_size(card, window)
        model = load_model(installed, *padded)
        self._check_cancelled()
        self._tell(stage="statistics", rows=window[3])
        source = SceneInput(scene, window, card, padded, self._request.seed, self._is_cancelled)
        self._notes += source.notes
        self._tell(stage="planning")
        program = SceneProgram.capture(model, len(card.bands), *padded)
        plan = program.plan(
            self._tensor_limit(scene, padded[1]),
            self._device,
            spill_folder=Path(self._request.output).absolute().parent,
        )
        if plan.fallback_ops:
            self._notes.append(
                "Computed on the whole scene at once, for want of a row rule: " + ", ".join(plan.fallback_ops)
            )
        self._check_cancelled()
        self._tell(stage="sweep", note=" ".join(self._notes))
        ids = torch.tensor([entry.id for entry in card.classes], dtype=torch.uint8, device=self._device)

        def hand_out(start: int, logits: torch.Tensor) -> None:
            self._hand_out(writer, source, window, start, ids[logits.argmax(1)[0]].cpu().numpy())

        def after_stripe(done: int, stripes: int) -> None:
            self._check_cancelled()
            self._tell_sweep(window[3], done / stripes)

        self._sweep_start = time.perf_counter()
        program.run(source.read_rows, hand_out, plan, after_stripe)
        return plan, time.perf_counter() - self._sweep_start

    def _hand_out(
        self,
        writer: ClassMapWriter,
        source: SceneInput,
        window: Window,
        start: int,
        classes: NDArray[np.uint8],
    ) -> None:
        rows = min(start + classes.shape[0], window[3]) - start
        if rows <= 0:  # padding below the scene
            return
        values = np.ascontiguousarray(classes[:rows, : window[2]])
        valid = source.valid_rows(start, start + rows)
        values[~valid] = NODATA
        self._valid_pixels += int(np.count_nonzero(valid))
        writer.write(start, values)
        if self._on_rows is not None:
            self._on_rows("classes", window[1] + start, values)
        self._handed = start + rows
        if self._first_rows_at is None:
            self._first_rows_at = time.perf_counter()

    def _tensor_limit(self, scene: Scene, width: int) -> int:
        """Bytes the engine's tensors may take: what the limit leaves beside the process and the reading."""
        now = resident_bytes()
        limit = self._request.memory_bytes
        if limit is None:
            limit = now + int(available_bytes() * _SHARE_OF_AVAILABLE)
        needed = now + _RESERVE_BYTES + scene.cache_bytes + reading_bytes(scene, width, self._device)
        if limit < needed:
            raise ResourceError(
                "E_MEMORY",
                f"The memory limit of {limit / 1e9:.2f} GB is below what the program needs before the sweep"
                f" ({needed / 1e9:.2f} GB). Raise it.",
            )
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            return int(free * _SHARE_OF_CUDA)
        return limit - needed

    def _is_cancelled(self) -> bool:
        return self._cancelled is not None and self._cancelled()

    def _check_cancelled(self) -> None:
        if self._is_cancelled():
            raise CancelledError

    def _tell_sweep(self, rows: int, share: float) -> None:
        passed = time.perf_counter() - self._sweep_start
        remaining = passed / share * (1 - share) if share > 0 else None
        self._tell(
            rows_done=self._handed, rows_per_second=share * rows / max(passed, 1e-9), eta_seconds=remaining
        )

    def _tell(self, **changes: object) -> None:
        self._progress = replace(self._progress, note="", memory_bytes=resident_bytes())
        self._progress = replace(self._progress, **changes)  # type: ignore[arg-type]
        if self._on_progress is not None:
            self._on_progress(self._progress)


def _choose_bands(scene: Scene, card: ModelCard, notes: list[str]) -> list[int]:
    """1-based bands the network reads: the first ones, said so when the scene has more."""
    wanted = len(card.bands)
    names = ", ".join(band.name for band in card.bands)
    if scene.count < wanted:
        raise InputError(
            "E_SCENE_BANDS",
            f"The model {card.id} reads {wanted} bands ({names}); {scene.path.name} has {scene.count}.",
        )
    if scene.count > wanted:
        notes.append(f"The scene has {scene.count} bands; the first {wanted} are read as {names}.")
    return list(scene.bands[:wanted])


def _check_window(window: Window | None, scene: Scene) -> Window:
    if window is None:
        return 0, 0, scene.width, scene.height
    column, row, width, height = window
    if (
        min(column, row) < 0
        or min(width, height) < 1
        or column + width > scene.width
        or row + height > scene.height
    ):
        raise InputError(
            "E_WINDOW",
            f"The window of {width} x {height} pixels at column {column}, row {row} is not inside the scene"
            f" of {scene.width} x {scene.height} pixels.",
        )
    return column, row, width, height


def _padded_size(card: ModelCard, window: Window) -> tuple[int, int]:
    """Height and width in pixels the network is run at."""
    multiple, smallest = required_multiple(card.architecture), minimum_size(card.architecture)
    height, width = (max(smallest, -(-size // multiple) * multiple) for size in (window[3], window[2]))
    return height, width


def _provenance(request: SegmentRequest, installed: InstalledModel, bands: list[int]) -> dict[str, str]:
    parameters = {key: value for key, value in asdict(request).items() if key in ("window", "seed")}
    packages = ("torch", "timm", "segmentation-models-pytorch", "numpy", "rasterio")
    versions = {"rest-backend": rest_backend.__version__, **{name: version(name) for name in packages}}
    return {
        "REST_METHOD": "segment",
        "REST_MODEL": installed.card.id,
        "REST_MODEL_SHA256": installed.card.sha256,
        "REST_BANDS": ",".join(map(str, bands)),
        "REST_SCENE": os.fspath(Path(request.scene).name),
        "REST_PARAMETERS": json.dumps(parameters),
        "REST_VERSIONS": json.dumps(versions),
    }
