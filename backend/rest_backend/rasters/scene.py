"""Reading a scene by windows, at full resolution, with its valid pixels.

A scene is a local raster file and a choice of its bands. Windows come as
float32 values and one mask; nothing is resampled or normalised here. Where the file
declares a scale and an offset of a band, values are ``stored * scale + offset``, which is
what they mean (reflectance, degrees); nodata is compared before, as stored.
Pixels are read from a handle without overviews (``OVERVIEW_LEVEL=NONE``), so a
file gives the same pixels with and without them.

**Valid pixels.** A pixel is valid unless

* the dataset's mask (``.msk`` file, mask inside the file) or its alpha band is 0 there;
* every chosen band has its nodata value there. One band is not enough: a deep
  shadow may well be 0 in one band, a white roof 255;
* a chosen band is NaN or infinite there, also once rounded to float32.

In a band of a signed or floating type a nodata value other than 0 (-9999,
-32768) can be no measurement. Where other bands keep such a pixel valid, that
band's value is returned as 0 and marked as not ``present``, which keeps it out of
the statistics. In unsigned types the value is returned as it is.

**Precision.** Values are float32: exact for 8 and 16 bit integers; 32 bit
integers beyond 2**24 and 64 bit floats are rounded to 24 significant bits.

Codes raised here, besides those of :mod:`~rest_backend.rasters.header`, all
:class:`~rest_backend.errors.InputError`:

=================== ==========================================================
``E_SCENE_BANDS``     a band the file does not have, or no band at all
``E_SCENE_COMPLEX``   complex numbers
``E_SCENE_TYPE``      another number type that float32 cannot stand for (64 bit integers)
``E_SCENE_BLOCKS``    see ``header``
``E_SCENE_DAMAGED``   pixels that cannot be read
``E_SCENE_CHANGED``   files that were replaced, altered or deleted since they were opened
=================== ==========================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rest_backend.errors import InputError
from rest_backend.rasters.environment import MINIMUM_CACHE, raster_environment
from rest_backend.rasters.header import (
    MAXIMUM_BANDS,
    MAXIMUM_BLOCK_ROW,
    Header,
    block_error,
    open_raster,
    read_header,
)
from rest_backend.rasters.readable import Present, ReadableScene
from rest_backend.rasters.sources import SourceFiles

LARGEST_SPARE_CACHE = 1024**3  # bytes; beyond it the cache holds one row of blocks, not two
READABLE_TYPES = frozenset(
    {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"}
)


@contextmanager
def open_scene(path: str | os.PathLike[str], bands: Sequence[int] | None = None) -> Iterator[Scene]:
    """Open a local raster as a scene; the file is closed at the end.

    Args:
        path: The raster file.
        bands: 1-based bands, in the order they are wanted, repeats allowed. None
            takes all but an alpha band. An alpha band that is asked for is read as
            data and no longer masks.

    Yields:
        The scene. Read it in this thread: GDAL's settings are a thread's own.

    Raises:
        InputError: With a code of this module or of ``header``.
    """
    with raster_environment():
        header = read_header(path)
    sources = SourceFiles((header.path, *header.files))
    chosen = _choose_bands(header, bands)
    _check_types(header, chosen)
    cache_bytes = _cache_bytes(header, chosen)
    # Georeferencing comes from `header`: without one, a handle opened with
    # OVERVIEW_LEVEL returns uninitialised memory as its transform (GDAL 3.10).
    with raster_environment(cache_bytes), open_raster(header.path, OVERVIEW_LEVEL="NONE") as dataset:
        yield Scene(header, chosen, dataset, cache_bytes, sources)


class Scene(ReadableScene):
    """An open raster and the bands chosen of it; made by :func:`open_scene`.

    Attributes:
        gcps: Ground control points where there is no transform.
        gcp_crs: The control points' reference system.
        rpcs: Rational polynomial coefficients or None.
    """

    def __init__(
        self, header: Header, bands: tuple[int, ...], dataset: Any, cache_bytes: int, sources: SourceFiles
    ) -> None:
        self.path: Path = header.path
        self.files = header.files
        self.width = header.width
        self.height = header.height
        self.count = len(bands)
        self.bands = bands
        self.transform: Affine = header.transform
        self.georeferenced = header.georeferenced
        self.crs = header.crs
        self.gcps = header.gcps
        self.gcp_crs = header.gcp_crs
        self.rpcs = header.rpcs
        self.dtypes = tuple(header.dtypes[band - 1] for band in bands)
        self.band_names = tuple(header.names[band - 1] for band in bands)
        self.nodata = tuple(header.nodata[band - 1] for band in bands)
        self.scales = tuple(_usable_scale(header.scales[band - 1]) for band in bands)
        self.offsets = tuple(_usable_offset(header.offsets[band - 1]) for band in bands)
        self.cache_bytes = cache_bytes
        self._sources = sources
        self._dataset = dataset
        self._nodata = tuple(
            _stored_nodata(value, dtype) for value, dtype in zip(self.nodata, self.dtypes, strict=True)
        )
        self._alpha = _masking_alpha(header, bands)
        flags = [header.mask_flags[band - 1] for band in bands]
        self._shared_mask = next(
            (
                band
                for band, of_band in zip(bands, flags, strict=True)
                if MaskFlags.per_dataset in of_band and MaskFlags.alpha not in of_band
            ),
            None,
        )
        self._own_masks = tuple(not of_band for of_band in flags)
        self.masked = (
            self._alpha is not None
            or self._shared_mask is not None
            or any(self._own_masks)
            or any(value is not None for value in self.nodata)
            or any(np.issubdtype(np.dtype(dtype), np.floating) for dtype in self.dtypes)
        )
        self.notes = _notes(header, bands, self._nodata)

    def check_unchanged(self) -> None:  # noqa: D102  as declared
        self._sources.check()

    def _read_window(
        self, row: int, height: int, column: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Present]:
        window = Window(column, row, width, height)
        try:
            stored = self._read_stored(window)
            missing = self._missing(stored, window)
            valid = self._unmasked(window)
        except RasterioError as error:
            self.check_unchanged()
            raise InputError(
                "E_SCENE_DAMAGED",
                f"Rows {row} to {row + height - 1} of {self.path.name} cannot be read: the file seems to be "
                "damaged or incomplete.",
            ) from error
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found just below
            values = np.empty((self.count, height, width), dtype=np.float32)
            for index, band in enumerate(stored):
                values[index] = band
                if self.scales[index] != 1.0:
                    values[index] *= self.scales[index]
                if self.offsets[index] != 0.0:
                    values[index] += self.offsets[index]
        del stored
        present = self._apply_missing(values, valid, missing)
        for band, dtype, scale in zip(values, self.dtypes, self.scales, strict=True):
            if scale != 1.0 or np.issubdtype(np.dtype(dtype), np.floating):
                valid &= np.isfinite(band)
        if not valid.all():
            values[:, ~valid] = 0.0
        return values, valid, present

    def _read_stored(self, window: Window) -> Sequence[NDArray[Any]]:
        """The bands in their stored types: one call, unless the types differ (VRT)."""
        if len(set(self.dtypes)) == 1:
            stored: NDArray[Any] = self._dataset.read(list(self.bands), window=window)
            return stored  # type: ignore[return-value]
        return [self._dataset.read(band, window=window) for band in self.bands]

    def _missing(self, stored: Sequence[NDArray[Any]], window: Window) -> list[NDArray[np.bool_] | None]:
        """Where each band has its nodata value or is masked by a mask of its own."""
        result: list[NDArray[np.bool_] | None] = []
        for index, band in enumerate(self.bands):
            absent: NDArray[np.bool_] | None = None
            if self._nodata[index] is not None:
                absent = stored[index] == self._nodata[index]
            if self._own_masks[index]:
                masked = self._dataset.read_masks(band, window=window) == 0
                absent = masked if absent is None else absent | masked
            result.append(absent)
        return result

    def _unmasked(self, window: Window) -> NDArray[np.bool_]:
        """Where neither the dataset's mask nor its alpha band hides the pixel."""
        valid = np.ones((window.height, window.width), dtype=bool)
        if self._shared_mask is not None:
            valid &= self._dataset.read_masks(self._shared_mask, window=window) != 0
        if self._alpha is not None:
            valid &= self._dataset.read(self._alpha, window=window) > 0
        return valid

    def _apply_missing(
        self,
        values: NDArray[np.float32],
        valid: NDArray[np.bool_],
        missing: list[NDArray[np.bool_] | None],
    ) -> NDArray[np.bool_] | None:
        """Clear pixels all bands miss in `valid`, and what no measurement is in `values`."""
        everywhere = [absent for absent in missing if absent is not None]
        if len(everywhere) == len(missing):
            valid &= ~np.logical_and.reduce(everywhere)
        present: NDArray[np.bool_] | None = None
        for index, absent in enumerate(missing):
            if absent is None or not self._is_sentinel(index) or not (absent & valid).any():
                continue
            if present is None:
                present = np.ones(values.shape, dtype=bool)
            present[index] = ~absent
            values[index][absent] = 0.0
        return present

    def _is_sentinel(self, index: int) -> bool:
        """Whether the band's nodata value, or its own mask, can be no measurement."""
        if self._own_masks[index]:
            return True
        return bool(self._nodata[index] != 0) and np.dtype(self.dtypes[index]).kind != "u"


def _choose_bands(header: Header, bands: Sequence[int] | None) -> tuple[int, ...]:
    if bands is None:
        data = [
            index
            for index, meaning in enumerate(header.interpretations, start=1)
            if meaning != ColorInterp.alpha
        ]
        return tuple(data) or tuple(range(1, header.band_count + 1))
    if not bands:
        raise InputError("E_SCENE_BANDS", "No band was chosen: choose at least one.")
    if len(bands) > MAXIMUM_BANDS:
        raise InputError(
            "E_SCENE_BANDS", f"{len(bands)} bands were chosen: at most {MAXIMUM_BANDS} can be read."
        )
    absent = [band for band in bands if not 1 <= band <= header.band_count]
    if absent:
        has = "1 band" if header.band_count == 1 else f"{header.band_count} bands"
        raise InputError(
            "E_SCENE_BANDS", f"{header.path.name} has {has}, but band {absent[0]} was asked for."
        )
    return tuple(int(band) for band in bands)


def _check_types(header: Header, bands: tuple[int, ...]) -> None:
    for band in bands:
        dtype = header.dtypes[band - 1]
        if dtype.startswith("complex"):
            raise InputError(
                "E_SCENE_COMPLEX",
                f"Band {band} of {header.path.name} holds complex numbers: convert the scene to amplitude or "
                "decibels first.",
            )
        if dtype not in READABLE_TYPES:
            raise InputError(
                "E_SCENE_TYPE",
                f"Band {band} of {header.path.name} is stored as {dtype}: integers up to 32 bit and floating "
                "point numbers can be read.",
            )


def _cache_bytes(header: Header, bands: tuple[int, ...]) -> int:
    """GDAL's block cache: two rows of blocks, so that no block is decoded twice on the way down.

    Very wide or deep scenes get one row and what is spare; less than one row would
    decode every block again for every stripe.
    """
    used = set(bands)
    alpha = _masking_alpha(header, bands)
    if alpha is not None:
        used.add(alpha)
    row = header.block_row_bytes(tuple(sorted(used)))
    if row > MAXIMUM_BLOCK_ROW:
        raise block_error(header)
    return max(MINIMUM_CACHE, min(2 * row, max(row, LARGEST_SPARE_CACHE)))


def _masking_alpha(header: Header, bands: tuple[int, ...]) -> int | None:
    """The alpha band that masks: the first one, unless an alpha band was chosen as data."""
    alphas = [
        index for index, meaning in enumerate(header.interpretations, start=1) if meaning == ColorInterp.alpha
    ]
    return alphas[0] if alphas and not set(alphas) & set(bands) else None


def _stored_nodata(value: float | None, dtype: str) -> Any:
    """The nodata value in the band's own type; None where the type cannot hold it."""
    if value is None or np.isnan(value):  # NaN is invalid anyway
        return None
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(value)
    limits = np.iinfo(kind)
    if not np.isfinite(value) or value != int(value) or not limits.min <= value <= limits.max:
        return None
    return kind.type(int(value))


def _usable_scale(scale: float) -> float:
    """A declared scale; 1 for what cannot be meant as one."""
    return float(scale) if np.isfinite(scale) and scale != 0 else 1.0


def _usable_offset(offset: float) -> float:
    return float(offset) if np.isfinite(offset) else 0.0


def _notes(header: Header, bands: tuple[int, ...], nodata: tuple[Any, ...]) -> list[str]:
    notes = []
    if header.gcps:
        notes.append(
            "The scene is placed by ground control points only: the result carries the same points and is "
            "not rectified."
        )
    elif not header.georeferenced:
        notes.append("The scene has no georeferencing: the result lies at pixel coordinates like the scene.")
    if header.crs is None and header.gcp_crs is None:
        notes.append("The scene has no coordinate reference system: the result has none either.")
    for band, value in zip(bands, nodata, strict=True):
        declared = header.nodata[band - 1]
        if declared is not None and not np.isnan(declared) and value is None:
            notes.append(
                f"The scene's nodata value {declared:g} does not fit its type {header.dtypes[band - 1]}: no "
                "pixel is nodata by it."
            )
            break
    scales = [(header.scales[band - 1], header.offsets[band - 1]) for band in bands]
    unusable = [pair for pair in scales if (_usable_scale(pair[0]), _usable_offset(pair[1])) != pair]
    if unusable:
        notes.append(
            f"The scene declares the scale {unusable[0][0]:g} and the offset {unusable[0][1]:g}: what "
            "cannot be meant is not applied."
        )
    if any(header.interpretations[band - 1] == ColorInterp.palette for band in bands):
        notes.append("A band holds indices into a colour table, not measured values.")
    if any(header.interpretations[band - 1] == ColorInterp.alpha for band in bands):
        notes.append("An alpha band is used as data: it hides no pixels.")
    return notes
