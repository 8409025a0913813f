"""What a request names, opened and checked: model, scene, bands, area, grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rest_backend.errors import InputError, RestError
from rest_backend.methods.bands import BandMatch, match_bands
from rest_backend.methods.grid import LARGEST_CHANGE, RunGrid, run_grid
from rest_backend.methods.request import Cancelled, MaskRows, SegmentRequest, Window
from rest_backend.models.card import ModelCard
from rest_backend.models.zoo import InstalledModel, find_model
from rest_backend.rasters.area import Area, read_area
from rest_backend.rasters.bands import SceneBand, scene_bands
from rest_backend.rasters.readable import ReadableScene
from rest_backend.rasters.resampled import resampled
from rest_backend.rasters.resolution import ground_resolution
from rest_backend.rasters.scene import Scene, open_scene
from rest_backend.rasters.sources import SourceFiles
from rest_backend.rasters.windows import checked_window

_T = TypeVar("_T")
OnProblem = Callable[[RestError], None]


@dataclass(frozen=True)
class Subject:
    """A scene and all that was chosen of it.

    Attributes:
        model: The model.
        scene: The scene, open, with the model's bands in its order.
        source: What the network reads: the scene, or the scene at another resolution.
        scene_bands: All bands of the file.
        bands: Which of them are the model's.
        window: Column, row, width, height of the result, in pixels of the scene.
        area: What of the window may get a class; None: all of it.
        area_path: Its file.
        grid: The scene's grid and the run's.
        own_resolution: Metres per pixel of the scene on the ground; None where it does not tell.
        notes: What the user should know.
    """

    model: InstalledModel
    scene: Scene
    source: ReadableScene
    scene_bands: tuple[SceneBand, ...]
    bands: tuple[BandMatch, ...]
    window: Window
    area: Area | None
    area_path: Path | None
    grid: RunGrid
    own_resolution: float | None
    notes: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """The same again as long as the files of scene and area, and the model, are."""
        area = () if self.area_path is None else (self.area_path,)
        files = SourceFiles((self.scene.path, *self.scene.files, *area))
        return f"{files.fingerprint}-{self.model.card.sha256}"

    def masks(self) -> list[MaskRows]:
        """Where rows of the result, counted from its top, may have a value: each ``mask(start, stop)``."""
        masks: list[MaskRows] = []
        if self.area is not None:
            masks.append(self.area.mask_rows)
        if self._masked_anew:
            masks.append(self._data_rows)
        return masks

    def mask_bytes(self, rows: int) -> int:
        """Bytes read for the masks of so many rows of the result."""
        if not self._masked_anew:
            return 0
        stored = sum(np.dtype(dtype).itemsize for dtype in self.scene.dtypes)
        return rows * self.window[2] * (stored + self.scene.count * (4 + 1) + 1)

    @property
    def _masked_anew(self) -> bool:
        return not self.grid.same and self.scene.masked  # a coarser pixel with data may cover some without

    def _data_rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        column, row, width, _ = self.window
        return self.scene.read(row + start, stop - start, column, width)[1]


@contextmanager
def open_subject(
    request: SegmentRequest, on_problem: OnProblem, cancelled: Cancelled | None = None
) -> Iterator[Subject]:
    """Open what a request names.

    Args:
        request: What to segment.
        on_problem: Told what stands in the way but leaves something to say (bands, window, area,
            resolution). It raises what it is told, or takes note; then the first bands, the whole
            scene, its own resolution stand in.
        cancelled: Asked while the area is read.

    Yields:
        The subject; the scene is closed at the end.

    Raises:
        InputError: Scene or model cannot be used.
        CancelledError: ``cancelled`` said so.
    """
    model = find_model(request.model)
    available = scene_bands(request.scene)
    bands = _choose_bands(model.card, available, request.bands, on_problem)
    notes = _band_notes(bands)
    with open_scene(request.scene, [match.band or 1 for match in bands]) as scene:
        notes += scene.notes
        whole = checked_window(scene, None)
        window = _or(on_problem, lambda: checked_window(scene, request.window), whole)
        area = None
        aoi = request.aoi
        if aoi is not None:
            area = _or(on_problem, lambda: read_area(aoi, scene, window, cancelled), None)
        if area is not None:
            notes += area.notes
            window = area.window
        own = ground_resolution(scene)
        sizes = (scene.width, scene.height, own)
        grid = _or(on_problem, lambda: run_grid(*sizes, request.resolution_m), run_grid(*sizes, None))
        notes += _resolution_notes(model.card, own, None if grid.same else request.resolution_m)
        source = scene if grid.same else resampled(scene, grid.width, grid.height)
        yield Subject(model, scene, source, available, bands, window, area, aoi, grid, own, notes)


def _or(on_problem: OnProblem, make: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return make()
    except InputError as error:
        on_problem(error)
        return otherwise


def _choose_bands(
    card: ModelCard, available: Sequence[SceneBand], given: tuple[int, ...], on_problem: OnProblem
) -> tuple[BandMatch, ...]:
    """The model's bands; those that are missing are told, never guessed."""
    try:
        bands = match_bands(card, available, given)
    except InputError as error:
        on_problem(error)
        bands = match_bands(card, available)
    missing = [match for match in bands if match.how == "missing"]
    if missing:
        names = ", ".join(match.model for match in missing)
        reasons = list(dict.fromkeys(match.reason for match in missing))[:3]
        message = f"It is not sure which band of the scene is {names}. {' '.join(reasons)}"
        if len(available) >= len(bands):
            example = ",".join(str(number) for number in range(1, len(bands) + 1))
            order = ", ".join(band.name for band in card.bands)
            message += f" Give the scene's bands in the model's order ({order}), such as --bands {example}."
        on_problem(InputError("E_BANDS_UNSURE", message))
    return bands


def _band_notes(bands: Sequence[BandMatch]) -> list[str]:
    assumed = [match for match in bands if match.how == "order"]
    if not assumed:
        return []
    read = ", ".join(f"band {match.band} as {match.model}" for match in assumed)
    return [f"The file does not say what its bands show; by a common order, {read}. Check this."]


def _resolution_notes(card: ModelCard, own: float | None, asked: float | None) -> list[str]:
    fits = card.ground_resolution_m
    seen = own if asked is None else asked
    if seen is None or fits.minimum <= seen <= fits.maximum:
        return []
    what = "The scene has" if asked is None else "The network sees"
    note = (
        f"{what} {seen:.3g} m per pixel on the ground; the model {card.id} was made for"
        f" {fits.minimum:g} to {fits.maximum:g} m."
    )
    if own is not None and 1 / LARGEST_CHANGE <= own / fits.expected <= LARGEST_CHANGE:
        return [f"{note} Set a resolution of {fits.expected:g} m."]
    return [f"{note} They are too far apart: take another scene or model."]
