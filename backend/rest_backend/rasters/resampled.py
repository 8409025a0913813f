"""A scene at another size, with the reading interface of a scene.

Smaller scenes are area averages, larger ones are interpolated bilinearly: always from the
full resolution, never from overviews, by GDAL's own resampling. Pixels and bands without a
measurement do not count: an average is one of the valid pixels under it.

Whatever window is asked for, pixels are computed in the same tiles of the new grid, each
from the same pixels of the scene. So they are the same to the last bit however windows
are cut.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from rest_backend.rasters.readable import Present, ReadableScene
from rest_backend.rasters.scene import Scene

TILE_COLUMNS = 512  # of the new grid
TILE_ROWS = 64  # of the new grid, at most
TILE_BYTES = 32 * 1024**2  # of the scene's rows under a row of tiles, in float32
MARGIN = 2  # pixels of the scene around a tile that its outermost pixels are computed from


class ResampledScene(ReadableScene):
    """A scene at another size; made by :func:`resampled`.

    Size and transform are those of the new grid.
    """

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        self._scene = scene
        self.width, self.height = width, height
        self.path, self.files = scene.path, scene.files
        self.count, self.bands = scene.count, scene.bands
        self._across, self._down = scene.width / width, scene.height / height
        a, b, c, d, e, f = scene.transform[:6]
        self.transform = Affine(a * self._across, b * self._down, c, d * self._across, e * self._down, f)
        self.georeferenced, self.crs = scene.georeferenced, scene.crs
        self.dtypes, self.band_names = scene.dtypes, scene.band_names
        self.nodata, self.masked = scene.nodata, scene.masked
        self.scales, self.offsets = scene.scales, scene.offsets
        self.notes, self.cache_bytes = scene.notes, scene.cache_bytes
        smaller = width * height < scene.width * scene.height
        self._resampling = Resampling.average if smaller else Resampling.bilinear
        row_bytes = math.ceil(self._down) * scene.width * scene.count * 4
        self._tile_rows = max(1, min(TILE_ROWS, TILE_BYTES // row_bytes))
        source_rows = math.ceil(self._tile_rows * self._down) + 2 * MARGIN + 1
        self.held_bytes = scene.count * (
            source_rows * scene.width * (4 + 2) + self._tile_rows * (width + TILE_COLUMNS) * 4
        )
        self._last: tuple[tuple[int, int, int], NDArray[np.float32]] | None = None

    def check_unchanged(self) -> None:  # noqa: D102  as declared
        self._scene.check_unchanged()

    def _read_window(
        self, row: int, height: int, column: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Present]:
        # A pixel is valid where a valid pixel of the scene goes into it.
        values = np.empty((self.count, height, width), dtype=np.float32)
        first, stop = column // TILE_COLUMNS, -(-(column + width) // TILE_COLUMNS)
        left = column - first * TILE_COLUMNS
        for band in range(row // self._tile_rows, -(-(row + height) // self._tile_rows)):
            top = band * self._tile_rows
            low, high = max(row, top), min(row + height, top + self._tile_rows)
            tiles = self._tiles(band, first, stop)
            values[:, low - row : high - row] = tiles[:, low - top : high - top, left : left + width]
        measured = np.isfinite(values)
        valid: NDArray[np.bool_] = np.logical_or.reduce(measured)
        values[~measured] = 0.0
        return values, valid, measured if (measured != valid).any() else None

    def _tiles(self, band: int, first: int, stop: int) -> NDArray[np.float32]:
        """A row of tiles: float32 ``(count, rows, columns)``, NaN where nothing was measured."""
        key = (band, first, stop)
        if self._last is None or self._last[0] != key:
            self._last = None  # not two at once
            self._last = (key, self._compute(band, first, stop))
        return self._last[1]

    def _compute(self, band: int, first: int, stop: int) -> NDArray[np.float32]:
        top, bottom = band * self._tile_rows, min((band + 1) * self._tile_rows, self.height)
        edges = [min(tile * TILE_COLUMNS, self.width) for tile in range(first, stop + 1)]
        rows = _source(top, bottom, self._down, self._scene.height)
        across = _source(edges[0], edges[-1], self._across, self._scene.width)
        source, valid, present = self._scene.read_present(
            rows[0], rows[1] - rows[0], across[0], across[1] - across[0]
        )
        source[:, ~valid] = np.nan
        if present is not None:
            source[~present] = np.nan
        result = np.empty((self.count, bottom - top, edges[-1] - edges[0]), dtype=np.float32)
        for left, right in zip(edges[:-1], edges[1:], strict=True):
            columns = _source(left, right, self._across, self._scene.width)
            window = Window(
                left * self._across - columns[0],
                top * self._down - rows[0],
                (right - left) * self._across,
                (bottom - top) * self._down,
            )
            part = source[:, :, columns[0] - across[0] : columns[1] - across[0]]
            result[:, :, left - edges[0] : right - edges[0]] = self._resample(
                part, window, (bottom - top, right - left)
            )
        return result

    def _resample(
        self, source: NDArray[np.float32], window: Window, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        if self._resampling == Resampling.average and (int(window.height), int(window.width)) == shape:
            # GDAL would copy pixels, by the whole part of the window's size: halves of pixels it does not.
            source = source.repeat(2, axis=2)
            window = Window(2 * window.col_off, window.row_off, 2 * window.width, window.height)
        count, height, width = source.shape
        profile: dict[str, Any] = {
            "driver": "MEM",
            "count": count,
            "height": height,
            "width": width,
            "dtype": "float32",
        }
        if np.isnan(source).any():  # without, GDAL need not look at every pixel
            profile["nodata"] = math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open("tile", "w+", **profile) as memory:
                memory.write(source)
                resampled: NDArray[np.float32] = memory.read(
                    window=window, out_shape=(count, *shape), resampling=self._resampling
                )
        return resampled


def resampled(scene: Scene, width: int, height: int) -> ResampledScene:
    """A scene at another size.

    Args:
        scene: An open scene; it must stay open.
        width: Pixels in a row of the new grid, over the scene's whole extent.
        height: Rows of the new grid.

    Returns:
        The scene at that size.

    Raises:
        ValueError: A size that is not positive.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a scene cannot have {width} x {height} pixels")
    return ResampledScene(scene, width, height)


def _source(start: int, stop: int, ratio: float, size: int) -> tuple[int, int]:
    """First and last pixel (after it) of the scene that pixels of the new grid come from."""
    return max(0, math.floor(start * ratio) - MARGIN), min(size, math.ceil(stop * ratio) + MARGIN)
